"""What each picture shows, from left to right: good photos, what is learned of them, how a new photo is scored."""

from collections.abc import Callable

from tools.drawing import Drawing
from tools.sketches.frozen import cfa, cflow, padim, patchcore, spade
from tools.sketches.scratch import cutpaste, patch_svdd, vae

SKETCHES: dict[str, tuple[str, Callable[[Drawing], None]]] = {
    "cfa": ("CFA", cfa),
    "patchcore": ("PatchCore", patchcore),
    "padim": ("PaDiM", padim),
    "spade": ("SPADE", spade),
    "cflow": ("CFLOW", cflow),
    "cutpaste": ("CutPaste", cutpaste),
    "patch_svdd": ("Patch SVDD", patch_svdd),
    "vae": ("VAE", vae),
}
"""By method: its name as a person calls it, and what draws its picture and says in its docstring what is to be seen."""
