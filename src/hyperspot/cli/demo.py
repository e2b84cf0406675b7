"""`hyperspot demo`."""

from pathlib import Path
from typing import Annotated

import typer

from hyperspot.cli import console, options, summaries
from hyperspot.cli.evaluate import evaluate_and_report
from hyperspot.cli.progress import Bars


def demo(
    folder: Annotated[Path, typer.Option("--folder", help="Folder for the images, the model and the report.")] = Path(
        "hyperspot-demo"
    ),
    weights: options.Weights = None,
    seed: Annotated[int, typer.Option(help="Seed of the images and the training.")] = 0,
    json: options.Json = False,
    open_report: options.OpenReport = False,
) -> None:
    """Render images of a synthetic product, train on the good ones, evaluate on the others and write a report."""
    from hyperspot.backbones import create
    from hyperspot.data import open_dataset
    from hyperspot.data.demo_product.product_set import make_product_set
    from hyperspot.detector.detector import Detector
    from hyperspot.detector.settings import Settings

    if weights is not None:
        # Unusable weights are refused before any image is rendered.
        create(Settings().backbone, weights=weights)
    product = make_product_set(folder / "product", seed=seed)
    dataset = open_dataset(product)
    detector = Detector.fit(dataset, weights=weights, seed=seed, progress=Bars())
    model = detector.save(folder / "product.safetensors")
    if not json:
        console.table("Trained", {"model": str(model), **summaries.of_training(detector)})
    evaluate_and_report(detector, dataset, folder / "report.html", json=json, open_report=open_report)
