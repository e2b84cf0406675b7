"""Downloads of backbone weights from the Hugging Face hub: resumed, and checked by SHA-256."""

import hashlib
import os
import re
import shutil
import tempfile
from pathlib import Path

from hyperspot.errors import WeightsError

REPOSITORIES = {
    "resnet18": "timm/resnet18.tv_in1k",
    "resnet34": "timm/resnet34.tv_in1k",
    "resnet50": "timm/resnet50.tv_in1k",
    "wide_resnet50_2": "timm/wide_resnet50_2.tv_in1k",
    "vgg19_bn": "timm/vgg19_bn.tv_in1k",
}
"""Repositories of torchvision's own IMAGENET1K_V1 weights, under torchvision's names.

EfficientNet-B5 has none: those that are published were made for other paddings, or trained by other recipes.
"""
FILE = "model.safetensors"
_SHA256 = re.compile("[0-9a-f]{64}")


def fetch(name: str, folder: Path) -> Path:
    """Download the weights of a backbone into a folder and return the file, named after backbone and commit.

    A connection that breaks is resumed where it broke. HF_ENDPOINT, HF_HUB_OFFLINE, HF_TOKEN and the proxy variables
    are respected; a copy in the hub's own cache is taken instead, offline too.

    Raises:
        WeightsError: Where there is no source, it cannot be reached, the folder cannot be written to, or what
            came is not what the hub said it would send.

    """
    repository = REPOSITORIES.get(name)
    if repository is None:
        raise WeightsError(
            f"there are no weights of {name}, and none to download under torchvision's names; save the tensors of "
            f"torchvision's {name} as {name}.safetensors in a folder and set HYPERSPOT_WEIGHTS to that folder"
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # A folder of its own for each download: two processes that start at once do not meet.
        with tempfile.TemporaryDirectory(dir=folder, prefix=".download-") as apart:
            return _fetch(name, repository, Path(apart))
    except WeightsError:
        raise
    # Whatever keeps the hub's client from its work (which HTTP library it stands on changes with its version), the
    # person needs to know the same: how to get the file without it.
    except Exception as error:  # noqa: BLE001
        reason = " ".join(str(error).split()) or type(error).__name__
        raise WeightsError(
            f"there are no weights of {name} here, and {repository} cannot be downloaded to {folder} ({reason}); "
            f"{_by_hand(name, repository)}"
        ) from None


def _fetch(name: str, repository: str, apart: Path) -> Path:
    got, commit, expected = _from_hub_cache(repository, apart) or _from_hub(name, repository, apart)
    with got.open("rb") as opened:
        actual = hashlib.file_digest(opened, "sha256").hexdigest()
    if actual != expected:
        raise WeightsError(
            f"the weights of {name} arrived damaged (SHA-256 {actual[:12]}... instead of {expected[:12]}...); "
            f"try again, or {_by_hand(name, repository)}"
        )
    kept = apart.parent / f"{name}-{repository.partition('.')[2]}-{commit[:8]}.safetensors"
    return got.replace(kept)


def _from_hub(name: str, repository: str, apart: Path) -> tuple[Path, str, str]:
    # Imported late: it takes its time, and most runs find their weights on disk.
    from huggingface_hub import get_hf_file_metadata, hf_hub_download, hf_hub_url

    endpoint = os.environ.get("HF_ENDPOINT")
    stated = get_hf_file_metadata(hf_hub_url(repository, FILE, endpoint=endpoint), endpoint=endpoint)
    expected = stated.etag or ""
    if _SHA256.fullmatch(expected) is None or stated.commit_hash is None:
        raise WeightsError(
            f"the server does not say which SHA-256 the weights of {name} have; {_by_hand(name, repository)}"
        )
    got = hf_hub_download(repository, FILE, revision=stated.commit_hash, local_dir=apart, endpoint=endpoint)
    return Path(got), stated.commit_hash, expected


def _from_hub_cache(repository: str, apart: Path) -> tuple[Path, str, str] | None:
    from huggingface_hub import try_to_load_from_cache

    cached = try_to_load_from_cache(repository, FILE)
    if not isinstance(cached, str):
        return None
    # The hub's cache links snapshots/COMMIT/FILE to blobs/SHA256; where links are not to be had, neither is the sum.
    expected = Path(cached).resolve().name
    if _SHA256.fullmatch(expected) is None:
        return None
    return Path(shutil.copyfile(cached, apart / FILE)), Path(cached).parent.name, expected


def _by_hand(name: str, repository: str) -> str:
    return (
        f"get {FILE} from https://huggingface.co/{repository}, put it as {name}.safetensors into a folder and set "
        "HYPERSPOT_WEIGHTS to that folder"
    )
