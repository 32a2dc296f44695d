"""The commands of the pipeline: `python -m pipeline --help`."""

import typer

from pipeline import (
    batch,
    bootstrap,
    built,
    doctor,
    figures,
    history,
    infra,
    notes,
    promote,
    register,
    release,
    rollback,
    smoke,
)

app = typer.Typer(
    help="Set up the AWS account, deploy the infrastructure, release an image or roll back, check an endpoint.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_show_locals=False,
)
app.command("figures")(figures.command)
app.command("bootstrap")(bootstrap.command)
app.command("doctor")(doctor.command)
app.command("infra")(infra.command)
app.command("built")(built.command)
app.command("register")(register.command)
app.command("promote")(promote.command)
app.command("notes")(notes.command)
app.command("release")(release.command)
app.command("rollback")(rollback.command)
app.command("history")(history.command)
app.command("smoke")(smoke.command)
app.command("batch")(batch.command)

if __name__ == "__main__":
    app()
