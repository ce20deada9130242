"""What tests do with segments of a preferences service."""

from google.protobuf.field_mask_pb2 import FieldMask
from wedsync.broadcast.v1 import common_pb2, directory_pb2

from tests.integration.preferences.site import Metadata, Site, some_rules
from tests.integration.shared.edge import Refusal, refusal_of

ABSENT = "3f2b8f58-52b3-4a44-9c7e-0b6b5ad5b9a1"
SHIPPED = [f"5e90e000-0000-4000-8000-00000000000{number}" for number in (1, 2, 3, 4)]
CONFIRMED, CANCELLED = directory_pb2.WEDDING_STATUS_CONFIRMED, directory_pb2.WEDDING_STATUS_CANCELLED


async def get(site: Site, segment_id: str) -> directory_pb2.Segment:
    """A segment, as a service reads it."""
    answer = await site.directory.GetSegment(
        directory_pb2.GetSegmentRequest(segment_id=segment_id), metadata=site.service("directory.read")
    )
    return answer.segment


async def update(site: Site, segment_id: str, *paths: str, **fields: object) -> directory_pb2.Segment:
    """A segment after its update."""
    answer = await site.directory.UpdateSegment(
        directory_pb2.UpdateSegmentRequest(
            segment_id=segment_id,
            segment=directory_pb2.Segment(**fields),  # type: ignore[arg-type]
            update_mask=FieldMask(paths=paths),
        ),
        metadata=site.service("directory.write"),
    )
    return answer.segment


async def delete(site: Site, segment_id: str, **fields: object) -> directory_pb2.DeleteSegmentResponse:
    """What a removal is answered."""
    request = directory_pb2.DeleteSegmentRequest(segment_id=segment_id, **fields)  # type: ignore[arg-type]
    return await site.directory.DeleteSegment(request, metadata=site.service("directory.write"))


async def members(site: Site, segment_id: str) -> set[int]:
    """Who is meant by a segment alone; the count must say so too."""
    targeting = common_pb2.Targeting(segment_ids=[segment_id])
    found = set((await site.resolve(targeting, some_rules())).outcomes("in_app"))
    assert (await site.count(segment_ids=[segment_id])).targeted == len(found)
    return found


async def names(site: Site, metadata: Metadata | None = None, page_size: int = 100) -> list[str]:
    """The names of all segments, page by page."""
    found: list[str] = []
    request = directory_pb2.ListSegmentsRequest(page_size=page_size)
    while True:
        page = await site.directory.ListSegments(request, metadata=metadata or site.service("directory.read"))
        assert len(page.segments) <= page_size
        found += [each.name for each in page.segments]
        if not page.next_page_token:
            return found
        request.page_token = page.next_page_token


async def refused_targeting(site: Site, *segment_ids: str) -> Refusal:
    """How a count and a resolve are refused, which must be alike."""
    counted = await refusal_of(site.count(segment_ids=segment_ids))
    resolved = await refusal_of(site.resolve(common_pb2.Targeting(segment_ids=segment_ids)))
    assert counted == resolved
    return counted
