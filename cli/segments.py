"""Shows segments, and makes, changes and removes them: saved criteria that broadcasts can be targeted at."""

from collections.abc import Iterator, Sequence
from enum import StrEnum
from typing import Annotated, Final
from uuid import UUID, uuid4

import typer
from google.protobuf.field_mask_pb2 import FieldMask
from wedsync.broadcast.v1.directory_pb2 import (
    CreateSegmentRequest,
    DeleteSegmentRequest,
    DeleteSegmentResponse,
    GetSegmentRequest,
    ListSegmentsRequest,
    ListSegmentsResponse,
    Segment,
    SegmentCriteria,
    UpdateSegmentRequest,
    UserType,
    WeddingStatus,
)

from cli import output
from cli.arguments import parse_user_type, parse_wedding_status
from cli.connection import Connection, ask
from cli.exits import ExitCode, Failure

app = typer.Typer(help="Saved criteria that broadcasts can be targeted at.", no_args_is_help=True)
_PAGE: Final = 100


class Criterion(StrEnum):
    """A criterion, by the option that sets it."""

    ROLE = "role"
    TIER = "tier"
    TYPE = "type"
    STATUS = "status"
    WITHIN_DAYS = "within-days"


_PATHS: Final = {
    Criterion.ROLE: "roles",
    Criterion.TIER: "tiers",
    Criterion.TYPE: "user_types",
    Criterion.STATUS: "wedding_statuses",
    Criterion.WITHIN_DAYS: "wedding_within_days",
}

Name = Annotated[str, typer.Argument(help="1-100 characters.")]
Which = Annotated[str, typer.Argument(help="A segment's id, or its name.")]
Roles = Annotated[list[str] | None, typer.Option("--role", help="Has this role. Repeatable: one of them.")]
Tiers = Annotated[list[str] | None, typer.Option("--tier", help="Is on this tier. Repeatable.")]
Types = Annotated[list[str] | None, typer.Option("--type", help="couple, supplier or staff. Repeatable.")]
Statuses = Annotated[
    list[str] | None,
    typer.Option(
        "--status", help="Their wedding is planning, confirmed, completed or cancelled. Repeatable."
    ),
]
Within = Annotated[
    int | None, typer.Option("--within-days", help="That wedding is today or so many days ahead at most.")
]
Description = Annotated[str | None, typer.Option(help="At most 500 characters.")]
Active = Annotated[bool | None, typer.Option("--active/--inactive", help="May be sent to, or not now.")]


@app.command("list")
def show_all(
    context: typer.Context,
    page_size: Annotated[int, typer.Option(help="At most so many.")] = 50,
    page_token: Annotated[str, typer.Option(help="The page that follows.")] = "",
) -> None:
    """List segments by name."""
    request = ListSegmentsRequest(page_size=page_size, page_token=page_token)
    ask(context.obj, lambda connection: _page(connection, request), _print_all)


def _print_all(answer: ListSegmentsResponse) -> None:
    output.table(
        ("id", "name", "people", "", "criteria"),
        (
            (
                each.segment_id,
                each.name,
                _people(each),
                "" if each.is_active else "inactive",
                ", ".join(f"{name} {value}" for name, value in _criteria(each.criteria)),
            )
            for each in answer.segments
        ),
    )
    output.more(answer.next_page_token)


@app.command()
def show(context: typer.Context, segment: Which) -> None:
    """Show a segment."""

    async def call(connection: Connection) -> Segment:
        request = GetSegmentRequest(segment_id=await resolve(connection, segment))
        answer = await connection.directory.GetSegment(request)
        return answer.segment

    ask(context.obj, call, _print)


@app.command()
def create(
    context: typer.Context,
    name: Name,
    description: Description = None,
    role: Roles = None,
    tier: Tiers = None,
    user_type: Types = None,
    status: Statuses = None,
    within_days: Within = None,
    active: Active = None,
) -> None:
    """Save criteria under a name. All that are given must hold; --status and --within-days for one wedding."""
    wanted = _segment(name, description, active, role, tier, user_type, status, within_days)
    request = CreateSegmentRequest(request_id=str(uuid4()), segment=wanted)

    async def call(connection: Connection) -> Segment:
        answer = await connection.directory.CreateSegment(request)
        return answer.segment

    ask(context.obj, call, _print)


@app.command()
def update(
    context: typer.Context,
    segment: Which,
    name: Annotated[str | None, typer.Option(help="1-100 characters.")] = None,
    description: Description = None,
    role: Roles = None,
    tier: Tiers = None,
    user_type: Types = None,
    status: Statuses = None,
    within_days: Within = None,
    clear: Annotated[list[Criterion] | None, typer.Option(help="Drop this criterion. Repeatable.")] = None,
    active: Active = None,
    etag: Annotated[str, typer.Option(help="Change only this version.")] = "",
) -> None:
    """Change what is given and leave the rest; a criterion that is given replaces what it was."""
    wanted = _segment(name, description, active, role, tier, user_type, status, within_days)
    wanted.etag = etag
    paths = [*_given(name, description, active), *_given_criteria(wanted.criteria)]
    paths += [f"criteria.{_PATHS[each]}" for each in clear or ()]
    if not paths:
        raise Failure("Nothing to change: see `broadcast segments update --help`.", ExitCode.USAGE)

    async def call(connection: Connection) -> Segment:
        request = UpdateSegmentRequest(
            segment_id=await resolve(connection, segment),
            request_id=str(uuid4()),
            segment=wanted,
            update_mask=FieldMask(paths=paths),
        )
        answer = await connection.directory.UpdateSegment(request)
        return answer.segment

    ask(context.obj, call, _print)


@app.command()
def delete(
    context: typer.Context,
    segment: Which,
    force: Annotated[
        bool, typer.Option("--force", help="Also when broadcasts are still to go out to it: they will fail.")
    ] = False,
    etag: Annotated[str, typer.Option(help="Remove only this version.")] = "",
) -> None:
    """Remove a segment."""

    async def call(connection: Connection) -> DeleteSegmentResponse:
        request = DeleteSegmentRequest(
            segment_id=await resolve(connection, segment),
            request_id=str(uuid4()),
            etag=etag,
            force=force,
        )
        return await connection.directory.DeleteSegment(request)

    ask(context.obj, call, _print_deleted)


def _print_deleted(answer: DeleteSegmentResponse) -> None:
    failing = answer.failing_broadcasts
    output.console.print(f"Removed; broadcasts that will fail by it: {failing:,}." if failing else "Removed.")


async def resolve(connection: Connection, segment: str) -> str:
    """The id of a segment that is named by it, or by its name. Raises Failure when there is none of that name."""
    try:
        return str(UUID(segment))
    except ValueError:
        pass
    request = ListSegmentsRequest(page_size=_PAGE)
    while True:
        page = await _page(connection, request)
        for each in page.segments:
            if each.name.lower() == segment.lower():
                return each.segment_id
        if not page.next_page_token:
            raise Failure(
                f"There is no segment {segment!r}: see `broadcast segments list`.", ExitCode.NOT_FOUND
            )
        request.page_token = page.next_page_token


async def _page(connection: Connection, request: ListSegmentsRequest) -> ListSegmentsResponse:
    return await connection.directory.ListSegments(request)


def _segment(
    name: str | None,
    description: str | None,
    active: bool | None,
    role: Sequence[str] | None,
    tier: Sequence[str] | None,
    user_type: Sequence[str] | None,
    status: Sequence[str] | None,
    within_days: int | None,
) -> Segment:
    criteria = SegmentCriteria(
        roles=role or (),
        tiers=tier or (),
        user_types=map(parse_user_type, user_type or ()),
        wedding_statuses=map(parse_wedding_status, status or ()),
        wedding_within_days=within_days,
    )
    return Segment(name=name or "", description=description or "", criteria=criteria, is_active=active)


def _given(name: str | None, description: str | None, active: bool | None) -> Iterator[str]:
    """The paths of what was given, also of what was given empty."""
    given = {"name": name, "description": description, "is_active": active}
    return (path for path, value in given.items() if value is not None)


def _given_criteria(criteria: SegmentCriteria) -> Iterator[str]:
    return (f"criteria.{field.name}" for field, _ in criteria.ListFields())


def _print(segment: Segment) -> None:
    pairs = [
        ("id", segment.segment_id),
        ("name", segment.name),
        ("description", segment.description),
        *_criteria(segment.criteria),
        ("active", "yes" if segment.is_active else "no"),
        ("people", _people(segment)),
        ("counted at", output.moment(segment.user_count_time)),
        ("etag", segment.etag),
    ]
    output.facts((name, value) for name, value in pairs if value)


def _people(segment: Segment) -> str:
    return f"{segment.user_count:,}" if segment.HasField("user_count_time") else "not counted yet"


def _criteria(criteria: SegmentCriteria) -> Iterator[tuple[str, str]]:
    """Each criterion that there is, with its alternatives."""
    lists = (
        ("role", criteria.roles),
        ("tier", criteria.tiers),
        ("type", [output.word(UserType.Name(each)) for each in criteria.user_types]),
        ("wedding", [output.word(WeddingStatus.Name(each)) for each in criteria.wedding_statuses]),
    )
    yield from ((name, " or ".join(values)) for name, values in lists if values)
    if criteria.HasField("wedding_within_days"):
        yield "wedding within", f"{criteria.wedding_within_days} days"
