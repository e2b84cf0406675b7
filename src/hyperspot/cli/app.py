"""The command line: `hyperspot demo | train | predict | evaluate | benchmark | export | info`.

Exit codes: 0 done; 1 a person's mistake (one sentence on stderr); 2 wrong usage; 3 anomalies were found and
`--fail-on-anomaly` was given. Heavy libraries are imported inside the commands, so that help answers at once.
"""

import os
import shlex
import sys
import webbrowser
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hyperspot import __version__
from hyperspot.cli import benchmark as _benchmark
from hyperspot.cli import console, options, summaries
from hyperspot.errors import HyperspotError, ModelFileError
from hyperspot.utils.optional_packages import explain

if TYPE_CHECKING:
    from hyperspot.detector.detector import Detector

app = typer.Typer(
    name="hyperspot",
    help="Show it what is right, and it finds what is wrong.\n\n"
    "Learn from photos of good parts only, then find, score and outline what is wrong in a new photo:\n\n"
    "    hyperspot train photos/good -o part.safetensors\n\n"
    "    hyperspot predict part.safetensors new.png --out results",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

WRONG_USAGE = 2
FOUND_ANOMALIES = 3
INTERRUPTED = 130
"""What typer makes of Ctrl-C, as shells do."""


@app.callback()
def _root(
    version: Annotated[
        bool,
        typer.Option("--version", help="Print the version.", callback=lambda wanted: _version(wanted), is_eager=True),
    ] = False,
) -> None: ...


def _version(wanted: bool) -> bool:
    if wanted:
        console.say(f"hyperspot {__version__}")
        raise typer.Exit
    return wanted


@app.command(short_help="Learn from photos of good parts.")
def train(
    data: options.Data,
    output: options.ModelOutput = Path("part.safetensors"),
    method: options.MethodName = "cfa",
    setting: options.MethodSetting = None,
    backbone: options.BackboneName = None,
    weights: options.Weights = None,
    short_side: options.ShortSide = 256,
    aspect: options.AspectChoice = options.Aspect.KEEP,
    crops: options.CropsChoice = options.Crops.FULL,
    sigma: options.Sigma = 4.0,
    seed: options.Seed = 0,
    false_alarm_rate: options.FalseAlarmRate = None,
    calibration: options.Calibration = options.CalibrationMode.AUTO,
    pixel_false_alarm_rate: options.PixelFalseAlarmRate = 0.001,
    layout: options.Layout = "auto",
    category: options.Category = None,
    device: options.Device = "auto",
    json: options.Json = False,
) -> None:
    """Learn from photos of good parts and write a model file."""
    from hyperspot.data import open_dataset
    from hyperspot.detector import model_file as model_file
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
            "aspect": aspect.value,
            "crops": crops.value,
            "sigma": sigma,
            "seed": seed,
            "false_alarm_rate": false_alarm_rate,
            "calibration": calibration.value,
            "pixel_false_alarm_rate": pixel_false_alarm_rate,
        }
    )
    model_file.require_writable(output)
    dataset = open_dataset(data, layout, category)
    summaries.tell_problems(dataset.problems)
    detector = Detector.fit(dataset, settings=settings, weights=weights, device=device, progress=console.Bars())
    detector.save(output)
    summary = {"model": str(output), **summaries.of_training(detector)}
    if json:
        console.say_json(summary)
    else:
        console.table(f"Trained on {dataset.name}", summary)


@app.command(short_help="Judge photos.")
def predict(
    model: Annotated[
        Path,
        typer.Argument(help="A model file, or one made by `hyperspot export` (no torch needed).", show_default=False),
    ],
    photos: Annotated[
        list[str],
        typer.Argument(
            help="Photos, folders or patterns such as 'line/*.png'; - reads a list from stdin.",
            show_default=False,
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option(help="A folder for overlay, heatmap, mask and JSON of each photo.", show_default=False),
    ] = None,
    json: options.Json = False,
    engine: Annotated[
        str | None,
        typer.Option(help="What runs an exported file: openvino or onnxruntime.", show_default=False),
    ] = None,
    precision: Annotated[
        options.Numbers | None,
        typer.Option(
            help="What the backbone computes in (f16 on a GPU alone); without it what suits the device.",
            show_default=False,
        ),
    ] = None,
    device: options.Device = "auto",
    fail_on_anomaly: Annotated[
        bool, typer.Option("--fail-on-anomaly", help="Exit with 3 where a photo is called anomalous.")
    ] = False,
    recursive: Annotated[bool, typer.Option("--recursive", "-r", help="Look into sub-folders.")] = False,
) -> None:
    """Judge photos: score, p-value, verdict, heatmap, mask and regions.

    A photo that cannot be read is named on stderr and the others are still judged; the exit code is then 1.
    """
    from hyperspot.cli.inputs import find_inputs, open_predictor, predict_paths

    found = find_inputs(photos, recursive=recursive)
    detector = open_predictor(model, engine, None if precision is None else precision.value, device)
    anomalies = unread = 0
    results = predict_paths(detector, found, out)
    if not sys.stdout.isatty():
        results = console.Bars().track(results, "judging", len(found))
    for judged in results:
        if isinstance(judged, HyperspotError):
            console.complain(str(judged))
            unread += 1
            continue
        verdict, files = judged
        anomalies += verdict.is_anomalous is True
        if json:
            fields = {name: None if path is None else str(path) for name, path in files.items()}
            console.say_json({**verdict.to_dict(), **fields})
        else:
            summaries.say_verdict(verdict)
    if unread:
        raise typer.Exit(1)
    if fail_on_anomaly and anomalies:
        raise typer.Exit(FOUND_ANOMALIES)


@app.command(short_help="Measure a model on labeled photos and write a report.")
def evaluate(
    model: options.ModelFile,
    data: options.Data,
    report: Annotated[
        Path | None,
        typer.Option(help="Where the HTML report goes; beside the model file where not given.", show_default=False),
    ] = None,
    layout: options.Layout = "auto",
    category: options.Category = None,
    device: options.Device = "auto",
    json: options.Json = False,
    open_report: options.OpenReport = False,
) -> None:
    """Measure a model on labeled photos, with thresholds from good parts only, and write an HTML report."""
    from hyperspot.data import open_dataset
    from hyperspot.detector.detector import Detector
    from hyperspot.report import require_writable

    detector = Detector.load(_trained(model), device=device)
    dataset = open_dataset(data, layout, category)
    page = report or model.with_name(f"{model.stem}.{dataset.name}.report.html")
    require_writable(page)
    _measure_and_report(detector, dataset, page, json=json, open_report=open_report)


app.command(name="benchmark", help=_benchmark.HELP, short_help="Measure methods and draw the paper's tables.")(
    _benchmark.benchmark
)


@app.command(short_help="Write a file that judges photos without torch.")
def export(
    model: options.ModelFile,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Where it goes: .onnx, or .xml for OpenVINO.", show_default=False)
    ],
    form: Annotated[
        options.ExportFormat | None,
        typer.Option("--format", help="Told by the suffix of the output where not given.", show_default=False),
    ] = None,
    int8: Annotated[
        Path | None,
        typer.Option(
            metavar="GOOD_PHOTOS",
            help="Quantize the backbone to 8-bit integers with the good photos it was trained on (OpenVINO alone).",
            show_default=False,
        ),
    ] = None,
    json: options.Json = False,
) -> None:
    """Write a model as one ONNX file or OpenVINO IR that judges photos without torch."""
    from hyperspot.detector.detector import Detector
    from hyperspot.export.exporting import export as write
    from hyperspot.export.exporting import summary

    detector = Detector.load(_trained(model), device="cpu")
    written = write(detector, output, None if form is None else form.value, int8=int8, progress=console.Bars())
    if json:
        console.say_json(summary(written))
    else:
        console.table("Exported", summary(written))


@app.command(short_help="Tell what is in a model file or a data set.")
def info(
    path: Annotated[
        Path | None, typer.Argument(help="A model file, or data to be recognized.", show_default=False)
    ] = None,
    engines: Annotated[
        bool,
        typer.Option("--engines", help="Tell what runs detectors on this machine: engines, device, formats."),
    ] = False,
    layout: options.Layout = "auto",
    category: options.Category = None,
    check: Annotated[
        bool, typer.Option("--check", help="Decode every photo and mask; exit with 1 where one is damaged.")
    ] = False,
    json: options.Json = False,
) -> None:
    """Tell what is in a model file and how it was made, what was recognized in a data set, or what this machine has.

    Of a folder of several products each is told, as one line. Without --check photos are told by their headers alone.
    """
    if engines:
        from hyperspot.runtime.machine import describe_machine

        described = describe_machine()
        if json:
            console.say_json(described)
        else:
            console.table("Engines", described)
        return
    if path is None:
        raise typer.BadParameter("give a model file or data, or --engines")
    if path.is_file() and path.suffix.lower() != ".csv":
        if check:
            raise typer.BadParameter("--check is for data, not for a model file")
        metadata = _describe_model(path)
        if json:
            console.say_json({"model": str(path), **metadata})
            return
        summaries.say_model(str(path), metadata)
        return
    from hyperspot.data import describe_each

    found: list[dict[str, Any]] = []
    failed = False
    for told in describe_each(path, layout, category, check=check, progress=console.Bars()):
        if isinstance(told, HyperspotError):
            console.complain(str(told))
            failed = True
            continue
        found.append(told)
        if json:
            console.say_json(told)
    if not json:
        summaries.say_data(str(path), found)
    if failed or any(told.get("damaged") for told in found):
        raise typer.Exit(1)


@app.command(short_help="Show all of it on a made-up product.")
def demo(
    folder: Annotated[Path, typer.Option("--folder", help="Where the photos, the model and the report go.")] = Path(
        "hyperspot-demo"
    ),
    weights: options.Weights = None,
    seed: Annotated[int, typer.Option(help="Decides the photos and the training.")] = 0,
    json: options.Json = False,
    open_report: options.OpenReport = False,
) -> None:
    """Make photos of a small product, learn the good ones, judge the others and write a report."""
    from hyperspot.backbones import create
    from hyperspot.data import open_dataset
    from hyperspot.data.demo_product.product_set import make_product_set
    from hyperspot.detector.detector import Detector
    from hyperspot.detector.settings import Settings

    if weights is not None:
        # What was named and cannot be used is told before any photo is made.
        create(Settings().backbone, weights=weights)
    product = make_product_set(folder / "product", seed=seed)
    dataset = open_dataset(product)
    detector = Detector.fit(dataset, weights=weights, seed=seed, progress=console.Bars())
    model = detector.save(folder / "product.safetensors")
    if not json:
        console.table("Trained", {"model": str(model), **summaries.of_training(detector)})
    _measure_and_report(detector, dataset, folder / "report.html", json=json, open_report=open_report)


def _describe_model(path: Path) -> dict[str, Any]:
    from hyperspot.runtime import ExportedDetector, is_exported

    if is_exported(path):
        return ExportedDetector.load(path).description
    from hyperspot.detector import model_file as model_file

    return model_file.read_metadata(path)


def _trained(model: Path) -> Path:
    """Return a path that is not that of an exported file, which lacks what training made."""
    from hyperspot.runtime import is_exported

    if is_exported(model):
        raise ModelFileError(f"{model} is an exported file; give the model file that it was exported from")
    return model


def _measure_and_report(detector: "Detector", dataset: Any, page: Path, *, json: bool, open_report: bool) -> None:
    from hyperspot.report import write_report

    summaries.tell_problems(dataset.problems)
    evaluation = detector.evaluate(dataset, progress=console.Bars(), command=_command())
    summaries.tell_problems(problem for problem in evaluation.problems if problem not in dataset.problems)
    write_report(evaluation, page)
    if json:
        console.say_json({**evaluation.to_dict(), "report": str(page)})
    else:
        console.table(f"Judged {dataset.name}", summaries.of_evaluation(evaluation))
        console.say(f"report: {page}")
    if open_report:
        webbrowser.open(page.resolve().as_uri())


def _command() -> str:
    return shlex.join(["hyperspot", *sys.argv[1:]])


def main() -> None:
    """Run the command line; a person's mistake ends with exit code 1 and one sentence."""
    if sys.argv[1:2] != ["benchmark"]:
        # Threads that wait by spinning lose what they are given where another program keeps a core busy: training then
        # takes several times as long. A benchmark has the machine for itself.
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    console.open_streams()
    if "" in sys.argv[1:]:
        console.complain("an argument is empty; is a variable in the command not set?")
        sys.exit(WRONG_USAGE)
    try:
        with console.image_warnings():
            app()
    except HyperspotError as error:
        console.complain(str(error))
        sys.exit(1)
    except ModuleNotFoundError as error:
        console.complain(str(explain(error, "training and all else but judging exported files")))
        sys.exit(1)
    except MemoryError:
        console.complain("there is not enough memory for this; use smaller photos or a smaller --short-side")
        sys.exit(1)
    except OSError as error:
        # What the disk does in the middle of the work: full, gone, not allowed.
        where = "" if error.filename is None else f"{error.filename}: "
        console.complain(
            f"{where}{(error.strerror or str(error)).lower()}; check the name, the permissions and the disk"
        )
        sys.exit(1)
    except SystemExit as ended:
        if ended.code == INTERRUPTED:
            console.complain("interrupted; what was finished before is unchanged")
        raise
