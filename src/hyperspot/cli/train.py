"""`hyperspot train`."""

from pathlib import Path

from hyperspot.choices import DEFAULTS
from hyperspot.cli import console, options, summaries
from hyperspot.cli.progress import Bars


def train(
    data: options.Data,
    output: options.ModelOutput = None,
    method: options.MethodName = DEFAULTS.method,
    setting: options.MethodSetting = None,
    backbone: options.BackboneName = None,
    weights: options.Weights = None,
    short_side: options.ShortSide = DEFAULTS.short_side,
    aspect: options.AspectOption = DEFAULTS.aspect,
    crops: options.CropsOption = DEFAULTS.crops,
    sigma: options.Sigma = DEFAULTS.sigma,
    seed: options.Seed = DEFAULTS.seed,
    false_alarm_rate: options.FalseAlarmRate = DEFAULTS.false_alarm_rate,
    calibration: options.CalibrationOption = DEFAULTS.calibration,
    mask_false_alarm_rate: options.MaskFalseAlarmRate = DEFAULTS.mask_false_alarm_rate,
    layout: options.Layout = "auto",
    category: options.Category = None,
    device: options.Device = "auto",
    json: options.Json = False,
) -> None:
    """Train on images of good parts and write a model file."""
    from hyperspot.data import open_dataset
    from hyperspot.detector import model_file
    from hyperspot.detector.detector import Detector
    from hyperspot.detector.settings import make_settings, parse_assignments
    from hyperspot.hardware.devices import resolve

    resolve(device)
    settings = make_settings(
        {
            "method": method,
            "method_settings": parse_assignments(setting or []),
            **({} if backbone is None else {"backbone": backbone}),
            "short_side": short_side,
            "aspect": aspect,
            "crops": crops,
            "sigma": sigma,
            "seed": seed,
            "false_alarm_rate": false_alarm_rate,
            "calibration": calibration,
            "mask_false_alarm_rate": mask_false_alarm_rate,
        }
    )
    if output is not None:
        model_file.require_writable(output)
    dataset = open_dataset(data, layout, category)
    if output is None:
        output = Path(f"{dataset.name}.safetensors")
        model_file.require_writable(output, replace=False)
    summaries.print_problems(dataset.problems)
    detector = Detector.fit(dataset, settings=settings, weights=weights, device=device, progress=Bars())
    detector.save(output)
    summary = {"model": str(output), **summaries.of_training(detector)}
    if json:
        console.print_json(summary)
    else:
        console.table(f"Trained on {dataset.name}", summary)
