"""What an operator does by hand."""

import typer

app = typer.Typer(help="For operators.", no_args_is_help=True)
