"""Addresses of the official files of Amazon Reviews 2014, 2018 and 2023 (McAuley Lab, UCSD)."""

from stages.shared.sources.published import PublishedFile

_2014 = "https://snap.stanford.edu/data/amazon/productGraph/categoryFiles"
_2018 = "https://mcauleylab.ucsd.edu/public_datasets/data/amazon_v2"
_2023 = "https://mcauleylab.ucsd.edu/public_datasets/data/amazon_2023/raw"
ADDRESSES = {  # by generation, {C} for the category: the log, the metadata
    "2014": (f"{_2014}/reviews_{{C}}_5.json.gz", f"{_2014}/meta_{{C}}.json.gz"),
    "2018": (f"{_2018}/categoryFilesSmall/{{C}}_5.json.gz", f"{_2018}/metaFiles2/meta_{{C}}.json.gz"),
    "2023": (f"{_2023}/review_categories/{{C}}.jsonl.gz", f"{_2023}/meta_categories/meta_{{C}}.jsonl.gz"),
}


def amazon_files(generation: str, category: str) -> list[PublishedFile]:
    return [PublishedFile(address.replace("{C}", category)) for address in ADDRESSES[generation]]
