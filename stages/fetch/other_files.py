"""Addresses of the official files of Goodreads, Steam and KuaiRec."""

from stages.shared.sources.published import PublishedFile

_GOODREADS = "https://mcauleylab.ucsd.edu/public_datasets/gdrive/goodreads"
_STEAM = "https://cseweb.ucsd.edu/~wckang"
# The publisher gives an MD5 beside the archive, and its size rounded.
KUAIREC = PublishedFile("https://zenodo.org/records/18164998/files/KuaiRec.zip", md5="261550d472c48eff4990fb13c0e5bcf7")


def other_files(source: str, category: str) -> list[PublishedFile]:
    """category: the genre of Goodreads; "" or dedup: all books."""
    if source == "kuairec":
        return [KUAIREC]
    if source == "steam":
        return [PublishedFile(f"{_STEAM}/steam_reviews.json.gz"), PublishedFile(f"{_STEAM}/steam_games.json.gz")]
    if category in ("", "dedup"):
        names = ("goodreads_interactions_dedup.json.gz", "goodreads_books.json.gz")
    else:
        names = (f"byGenre/goodreads_interactions_{category}.json.gz", f"byGenre/goodreads_books_{category}.json.gz")
    return [PublishedFile(f"{_GOODREADS}/{name}") for name in names]
