"""The kinds of jobs, a file each."""

from collections.abc import Mapping

from hyperspot.service.jobs.base import JobKind
from hyperspot.service.jobs.compare import COMPARE
from hyperspot.service.jobs.import_images import IMPORT
from hyperspot.service.jobs.train import TRAIN
from hyperspot.service.jobs.update import UPDATE

KINDS: Mapping[str, JobKind] = {"train": TRAIN, "update": UPDATE, "compare": COMPARE, "import": IMPORT}
