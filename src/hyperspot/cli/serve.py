"""`hyperspot serve`: the inspection station, its backups, its users and tokens."""

import getpass
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from hyperspot.cli import console, options
from hyperspot.errors import DataError, HyperspotError
from hyperspot.utils.optional_packages import require

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy.orm import Session
    from typer import Context

    from hyperspot.service.serving import Announcement
    from hyperspot.service.settings import StationSettings
else:
    # What typer passes is of the base class.
    Context = typer.Context.__base__

RoleName = Literal["operator", "engineer", "admin"]
LogLevel = Literal["debug", "info", "warning", "error"]
MEGABYTE = 1_000_000

serve = typer.Typer(
    help="Run the inspection station: pages, REST, records, cameras and outputs around the models of your products.\n\n"
    "    hyperspot serve --data DIR\n\n"
    "It prints its address with a link that signs the first admin in, once, within ten minutes. Images, models and the "
    "database lie in DIR. Ctrl-C or SIGTERM stops it after running inspections are finished.\n\n"
    "    hyperspot serve --demo\n\n"
    "trains a rendered product and inspects images of it, to look around.",
    invoke_without_command=True,
    rich_markup_mode=None,
)
user = typer.Typer(
    help="Add or change users, for example after a lost password; the station may run.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
token = typer.Typer(help="Add tokens of programs; the station may run.", no_args_is_help=True, rich_markup_mode=None)
serve.add_typer(user, name="user", short_help="Add or change users, for example after a lost password.")
serve.add_typer(token, name="token", short_help="Add tokens of programs.")

DEFAULT_DATA = Path("hyperspot-station")
Data = Annotated[Path, typer.Option("--data", metavar="DIR", help="Folder of the station; created if missing.")]
DatabaseAddress = Annotated[
    str | None,
    typer.Option(
        "--database",
        metavar="ADDRESS",
        envvar="HYPERSPOT_DATABASE",
        help="postgresql+psycopg://USER:PASSWORD@HOST/NAME, better by the environment variable: other users of the "
        "machine can read a command line; default: SQLite in DIR.",
        show_default=False,
    ),
]
Name = Annotated[str, typer.Argument(help="Name of the user.", show_default=False)]
PasswordFromInput = Annotated[
    bool, typer.Option("--password-stdin", help="Read the password from the first line of standard input.")
]


@serve.callback(invoke_without_command=True)
def run(
    context: Context,
    data: Data = DEFAULT_DATA,
    database: DatabaseAddress = None,
    host: Annotated[
        str, typer.Option(help="Address to listen on; 0.0.0.0 lets other machines in, best with TLS.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on; 0 takes a free one.", min=0, max=65535)] = 8765,
    workers: Annotated[int, typer.Option(help="Processes that predict.", min=1)] = 1,
    engine: Annotated[
        str | None,
        typer.Option(
            help="torch, openvino or onnxruntime; default: by the file and by what is installed.", show_default=False
        ),
    ] = None,
    threads: Annotated[
        int | None,
        typer.Option(
            help="Threads of each worker; default: the cores divided by the workers.", min=1, show_default=False
        ),
    ] = None,
    queue: Annotated[
        int, typer.Option(help="Images that wait at most; the next ones are answered with 429.", min=1)
    ] = 64,
    deadline: Annotated[float, typer.Option(help="Seconds after which a waiting image is given up.", min=0.1)] = 30.0,
    max_upload_mb: Annotated[float, typer.Option(help="Megabytes of a request at most.", min=0.01)] = 200.0,
    keep_days: Annotated[
        float | None,
        typer.Option(
            help="Days that images are kept; default: all. Labeled ones are always kept.", min=0.01, show_default=False
        ),
    ] = None,
    keep_gb: Annotated[
        float | None,
        typer.Option(
            help="Gigabytes of images; beyond them the oldest of good parts go first.", min=0.01, show_default=False
        ),
    ] = None,
    tls_certificate: Annotated[
        Path | None, typer.Option(help="PEM file; with --tls-key the station answers HTTPS alone.", show_default=False)
    ] = None,
    tls_key: Annotated[
        Path | None, typer.Option(help="PEM file of the private key, without a password.", show_default=False)
    ] = None,
    allowed_host: Annotated[
        list[str] | None,
        typer.Option(
            help="A name by which the station is reached, beside that of this machine; may be repeated. Requests to "
            "other names are refused.",
            show_default=False,
        ),
    ] = None,
    secure_cookies: Annotated[
        bool, typer.Option("--secure-cookies", help="Send cookies over HTTPS only; behind a proxy with TLS.")
    ] = False,
    sign_in_link: Annotated[
        bool, typer.Option("--sign-in-link", help="Print a one-time link even if an admin has a password.")
    ] = False,
    log_level: Annotated[LogLevel, typer.Option(help="Least level of the log on stderr.")] = "info",
    demo: Annotated[
        bool, typer.Option("--demo", help="Train a rendered product and inspect an image of it every two seconds.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="Print the address and the link as one JSON object.")] = False,
) -> None:
    """Run the station."""
    if context.invoked_subcommand is not None:
        return
    _require()
    if demo:
        from hyperspot.service import demo as demonstration

        demonstration.check()
    from hyperspot.service import logs, serving

    settings = _settings(
        data=data, database=database, host=host, port=port, workers=workers, engine=engine, threads=threads,
        queue=queue, deadline=deadline, max_upload=round(max_upload_mb * MEGABYTE), keep_days=keep_days,
        keep_gigabytes=keep_gb, tls_certificate=tls_certificate, tls_key=tls_key,
        allowed_hosts=tuple(allowed_host or ()), secure_cookies=True if secure_cookies else None,
    )  # fmt: skip
    logs.configure(log_level)
    serving.serve(settings, lambda where: _announce(where, settings, json), link=sign_in_link, demo=demo)


@serve.command(short_help="Write all of a station into one file, while it runs.")
def backup(
    data: Annotated[Path, typer.Argument(metavar="DIR", help="Folder of the station.", show_default=False)],
    output: Annotated[Path, typer.Argument(metavar="OUT.tar", help="File to write.", show_default=False)],
    database: DatabaseAddress = None,
    images: Annotated[
        bool, typer.Option("--images/--without-images", help="Also the images and anomaly maps, which are most of it.")
    ] = True,
    overwrite: options.Overwrite = False,
    json: options.Json = False,
) -> None:
    """Write all of a station into one file: database, models and images, with checksums. The station may run.

    The file holds hashes of passwords and the passwords of outputs: keep it as you keep the station.
    """
    _require()
    from hyperspot.service.backup import back_up

    if output.exists() and not overwrite:
        raise DataError(f"{output} exists; choose another name or give --overwrite")
    made = back_up(_settings(data=data, database=database), output, images=images)
    _show("Backed up", {"file": str(output), **made.to_dict()}, json)


@serve.command(short_help="Make a station of a backup, in an empty folder.")
def restore(
    file: Annotated[Path, typer.Argument(metavar="OUT.tar", help="A file made by backup.", show_default=False)],
    data: Annotated[Path, typer.Argument(metavar="DIR", help="Empty or new folder.", show_default=False)],
    database: DatabaseAddress = None,
    json: options.Json = False,
) -> None:
    """Make a station of a backup, in an empty folder, and with --database in an empty database of any kind.

    Checksums are verified; if anything is wrong, nothing is restored. Everybody signs in again.
    """
    _require()
    from hyperspot.service.backup import restore as restore_backup

    made = restore_backup(file, _settings(data=data, database=database))
    _show("Restored", {"data": str(data), **made.to_dict()}, json)


@user.command(short_help="Add a user.")
def add(
    name: Name,
    role: Annotated[RoleName, typer.Option(help="What the user may do.")] = "operator",
    data: Data = DEFAULT_DATA,
    database: DatabaseAddress = None,
    password_stdin: PasswordFromInput = False,
) -> None:
    """Add a user; the password is asked for, or read from standard input."""
    _require()
    from hyperspot.service.access.accounts import create_user

    password = _password(password_stdin)
    _change(data, database, lambda session: create_user(session, name, password, role, "station"))
    console.print_line(f"user {name} has the role {role}")


@user.command(short_help="Give a user a new password.")
def password(
    name: Name, data: Data = DEFAULT_DATA, database: DatabaseAddress = None, password_stdin: PasswordFromInput = False
) -> None:
    """Give a user a new password; all sessions of the user end."""
    _require()
    from hyperspot.service.access.accounts import set_password

    given = _password(password_stdin)
    _change(data, database, lambda session: set_password(session, name, given, "station"))
    console.print_line(f"user {name} has a new password")


@user.command(short_help="Lock a user out.")
def disable(name: Name, data: Data = DEFAULT_DATA, database: DatabaseAddress = None) -> None:
    """Lock a user out at once; what the user did stays. The last admin cannot be disabled."""
    _require()
    from hyperspot.service.access.accounts import set_disabled

    _change(data, database, lambda session: set_disabled(session, name, True, "station"))
    console.print_line(f"user {name} is disabled")


@token.command("add", short_help="Add a token of a program.")
def add_token(
    name: Annotated[str, typer.Argument(help="Stands in the audit log, e.g. press-3.", show_default=False)],
    role: Annotated[RoleName, typer.Option(help="What the program may do.")] = "operator",
    data: Data = DEFAULT_DATA,
    database: DatabaseAddress = None,
    json: options.Json = False,
) -> None:
    """Add a token and print it, this once; programs send it as `Authorization: Bearer hsp_...`."""
    _require()
    from hyperspot.service.access.tokens import create_token

    secret = _change(data, database, lambda session: create_token(session, name, role, "station")[1])
    if json:
        console.print_json({"name": name, "role": role, "token": secret})
    else:
        console.print_line(secret)


def _require() -> None:
    """Raise MissingPackageError, one sentence, without the extra `serve`."""
    for module in ("fastapi", "uvicorn", "sqlalchemy", "alembic", "argon2", "python_multipart"):
        require(module, "serve", "the station")


def _settings(**values: Any) -> "StationSettings":
    from hyperspot.service.settings import StationSettings

    return StationSettings.make(**values)


def _announce(where: "Announcement", settings: "StationSettings", json: bool) -> None:
    if json:
        console.print_json({"address": where.address, "sign_in_link": where.sign_in_link, "data": str(settings.data)})
        return
    console.print_line(f"the station is ready at {where.address}")
    if where.sign_in_link is not None:
        console.print_line("sign in once, within ten minutes: ", (where.sign_in_link, "bold"))
    sys.stdout.flush()


def _show(title: str, values: dict[str, Any], json: bool) -> None:
    if json:
        console.print_json(values)
    else:
        console.table(title, values)


def _password(from_input: bool) -> str:
    if from_input:
        return sys.stdin.readline().rstrip("\r\n")
    first = getpass.getpass("Password: ")
    if first != getpass.getpass("Again: "):
        raise DataError("the two passwords differ; try again")
    return first


def _change(data: Path, address: str | None, change: "Callable[[Session], Any]") -> Any:
    """Return what a change of the database gives; its problems become errors."""
    from hyperspot.service.database import Database
    from hyperspot.service.problems import Problem

    settings = _settings(data=data, database=address)
    if address is None and not data.is_dir():
        raise DataError(f"{data} is no folder of a station; check --data")
    database = Database(settings.database_address)
    try:
        database.migrate()
        with database.session() as session:
            return change(session)
    except Problem as problem:
        raise HyperspotError(problem.detail) from None
    finally:
        database.close()
