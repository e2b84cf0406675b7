"""Downloads of backbone weights from the Hugging Face hub: resumed, and checked by SHA-256."""

import hashlib
import os
import re
import shutil
import tempfile
from pathlib import Path

from hyperspot.backbones.weights import file_stem
from hyperspot.errors import WeightsError

FILE = "model.safetensors"
_SHA256 = re.compile("[0-9a-f]{64}")


def fetch(name: str, repository: str, folder: Path) -> Path:
    """Download the weights of a backbone into a folder and return the file, named after backbone and commit.

    A broken connection is resumed. HF_ENDPOINT, HF_HUB_OFFLINE, HF_TOKEN and the proxy variables are respected. A copy
    in the hub's own cache is used if there is one, also offline.

    Args:
        name: The backbone.
        repository: On the hub; it holds `model.safetensors`.
        folder: Created if missing.

    Raises:
        WeightsError: If the repository cannot be reached, the folder cannot be written, or the checksum of the
            download differs.

    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # One folder per download, so that concurrent processes do not collide.
        with tempfile.TemporaryDirectory(dir=folder, prefix=".download-") as apart:
            return _fetch(name, repository, Path(apart))
    except WeightsError:
        raise
    # Any exception: the hub's client changes its HTTP library, and thereby its exceptions, between versions.
    except Exception as error:  # noqa: BLE001
        reason = " ".join(str(error).split()) or type(error).__name__
        raise WeightsError(
            f"the weights of {name} are missing, and {repository} cannot be downloaded to {folder} ({reason}); "
            f"{_by_hand(name, repository)}"
        ) from None


def _fetch(name: str, repository: str, apart: Path) -> Path:
    got, commit, expected = _from_hub_cache(repository, apart) or _from_hub(name, repository, apart)
    with got.open("rb") as opened:
        actual = hashlib.file_digest(opened, "sha256").hexdigest()
    if actual != expected:
        raise WeightsError(
            f"the download of the weights of {name} is damaged (SHA-256 {actual[:12]}... instead of "
            f"{expected[:12]}...); try again, or {_by_hand(name, repository)}"
        )
    tag = repository.partition(".")[2] or repository.rpartition("/")[2]
    return got.replace(apart.parent / f"{file_stem(name)}-{tag}-{commit[:8]}.safetensors")


def _from_hub(name: str, repository: str, apart: Path) -> tuple[Path, str, str]:
    # Imported late: slow, and most runs find their weights on disk.
    from huggingface_hub import get_hf_file_metadata, hf_hub_download, hf_hub_url

    endpoint = os.environ.get("HF_ENDPOINT")
    stated = get_hf_file_metadata(hf_hub_url(repository, FILE, endpoint=endpoint), endpoint=endpoint)
    expected = stated.etag or ""
    if _SHA256.fullmatch(expected) is None or stated.commit_hash is None:
        raise WeightsError(f"the server sends no SHA-256 for the weights of {name}; {_by_hand(name, repository)}")
    got = hf_hub_download(repository, FILE, revision=stated.commit_hash, local_dir=apart, endpoint=endpoint)
    return Path(got), stated.commit_hash, expected


def _from_hub_cache(repository: str, apart: Path) -> tuple[Path, str, str] | None:
    from huggingface_hub import try_to_load_from_cache

    cached = try_to_load_from_cache(repository, FILE)
    if not isinstance(cached, str):
        return None
    # The hub's cache links snapshots/COMMIT/FILE to blobs/SHA256; without symbolic links there is no checksum.
    expected = Path(cached).resolve().name
    if _SHA256.fullmatch(expected) is None:
        return None
    return Path(shutil.copyfile(cached, apart / FILE)), Path(cached).parent.name, expected


def _by_hand(name: str, repository: str) -> str:
    return (
        f"get {FILE} from https://huggingface.co/{repository}, put it as {file_stem(name)}.safetensors into a folder "
        "and set HYPERSPOT_WEIGHTS to that folder"
    )
