"""Every version of every stage that anything knows, and what was made from what: edges are content hashes."""

from collections import defaultdict
from collections.abc import Iterable
from functools import cached_property
from itertools import accumulate
from pathlib import Path

from tasks.dvc.dir_listing import Listing, cached_listing, object_path, read_json
from tasks.dvc.lockfile import read_lock
from tasks.ledger.lines import read_events
from tasks.lineage.git_history import Parser, git_locks
from tasks.lineage.versions import RawData, Version, malformed, of_entry, of_event
from tasks.system.errors import ProjectError

WORKSPACE = "workspace"
WEIGHTS = (".safetensors", ".bin", ".pt", ".pth", ".gguf", ".onnx")

Data = tuple[str, str]  # path, md5


class Index:
    """What dvc.lock, git's dvc.locks and the lineage record know of the project at `root`. `versions`: oldest first, as far as is known."""

    def __init__(self, root: Path):
        self.root = root
        self._by_key: dict[str, Version] = {}
        self._listings: dict[str, Listing | None] = {}
        self.parser = Parser()
        self.locks = git_locks(root)
        for number, event in enumerate(read_events(root)):
            try:
                version = of_event(event)
            except (KeyError, TypeError, ValueError, AttributeError):
                continue  # an event that was tampered with: --verify names it
            if version:
                self._add(version).latest = number
        for lock in reversed(self.locks):
            for name, entry in self.parser(lock.text, lock.source).items():
                version = self._add(of_entry(name, entry))
                version.refs |= lock.short_refs
                version.commits += [commit for commit in lock.commits if commit not in version.commits]
        for name, entry in (workspace_lock := read_lock(root)).items():
            if why := malformed(entry):
                raise ProjectError(f"dvc.lock: {name}: {why}; gr2 lineage --verify says more")
        self.current = {name: self._add(of_entry(name, entry)) for name, entry in workspace_lock.items()}
        for version in self.current.values():
            version.refs.add(WORKSPACE)
        self.versions = list(self._by_key.values())

    def of_lock(self, text: bytes, source: str) -> list[Version]:
        """The versions in a dvc.lock."""
        return [self._add(of_entry(name, entry)) for name, entry in self.parser(text, source).items()]

    def listing(self, md5: str) -> Listing:
        """The files of the folder with this hash, from DVC's cache or an event; empty when neither has them."""
        if md5 not in self._listings:
            listing = cached_listing(self.root, md5) if md5.endswith(".dir") else None
            if listing is None:
                recorded_listings = (
                    version.listings[path]
                    for version in self.versions
                    for path, entry in (*version.outputs.items(), *version.inputs.items())
                    if entry["hash"] == md5 and path in version.listings
                )
                listing = next(recorded_listings, None)
            self._listings[md5] = listing
        return self._listings[md5] or {}

    def metrics(self, version: Version) -> dict[str, object]:
        """From an event, or from DVC's cache; empty when neither holds them."""
        if not version.metrics:
            md5 = next((out["hash"] for path, out in version.outputs.items() if Path(path).name == "metrics.json"), "")
            values = read_json(object_path(self.root, md5)) if md5 else {}
            version.metrics = values if isinstance(values, dict) else {"value": values}
        return version.metrics

    def raw(self, version: Version) -> RawData | None:
        self.metrics(version)
        return version.raw

    def is_model(self, path: str, md5: str) -> bool:
        """A folder that holds weights; where its files are not known, one whose name says model."""
        files = self.listing(md5)
        return md5.endswith(".dir") and (any(name.endswith(WEIGHTS) for name in files) if files else "model" in Path(path).name)

    @cached_property
    def by_output(self) -> dict[Data, list[Version]]:
        makers: dict[Data, list[Version]] = defaultdict(list)
        for version in self.versions:
            for path, out in version.outputs.items():
                makers[path, out["hash"]].append(version)
        return makers

    @cached_property
    def readers(self) -> dict[Data, list[Version]]:
        """(path, md5) of an output -> the versions that read it, a file in it or a folder that contains it."""
        readers: dict[Data, list[Version]] = defaultdict(list)
        for version in self.versions:
            for data in dict.fromkeys(data for path, entry in version.inputs.items() for data in self.sources(path, entry["hash"])):
                readers[data].append(version)
        return readers

    @cached_property
    def external_inputs(self) -> dict[Data, list[Version]]:
        """(path, md5) of an input that no known version produced, such as the user's own folder -> the versions that read it."""
        readers: dict[Data, list[Version]] = defaultdict(list)
        for version in self.versions:
            for path, entry in version.inputs.items():
                if (path, entry["hash"]) in self.sources(path, entry["hash"]) and (path, entry["hash"]) not in self.by_output:
                    readers[path, entry["hash"]].append(version)
        return readers

    def sources(self, path: str, md5: str) -> list[Data]:
        """The outputs that an input comes from: itself, a folder that contains it, or those inside it; itself if no producer is known."""
        if (path, md5) in self.by_output:
            return [(path, md5)]
        outputs = []
        for folder in accumulate(path.split("/")[:-1], "{}/{}".format):
            inside = path.removeprefix(folder + "/")
            outputs += [(folder, folder_md5) for folder_md5 in self._hashes.get(folder, ()) if self.listing(folder_md5).get(inside) == md5]
        if md5.endswith(".dir"):
            folder_files, start = self.listing(md5), path.rstrip("/") + "/"
            for output_path in (output_path for output_path in self._hashes if output_path.startswith(start)):
                outputs += [
                    (output_path, out_md5)
                    for out_md5 in self._hashes[output_path]
                    if self._lies_in(folder_files, output_path.removeprefix(start), out_md5)
                ]
        return outputs or [(path, md5)]

    def producers(self, version: Version) -> list[tuple[Data, Version]]:
        """The versions that produced the inputs of `version`; of several with the same bytes, the one recorded nearest to it."""
        producers = []
        for path, entry in version.inputs.items():
            for data in self.sources(path, entry["hash"]):
                makers = self.by_output.get(data, [])
                if makers:
                    producers.append((data, self.nearest(version.refs, version.commits, makers)))
        return producers

    def nearest(self, refs: set[str], commits: list[str], makers: list[Version]) -> Version:
        """The one recorded beside: in the workspace's dvc.lock if it can be, in the same refs or commit, else the newest."""

        def rank(version: Version) -> tuple[bool, int, bool, int]:
            in_workspace = WORKSPACE in refs and WORKSPACE in version.refs
            return (
                in_workspace,
                len(refs & version.refs),
                bool(set(commits) & set(version.commits)),
                version.latest,
            )

        return max(makers, key=rank)

    def upstream_versions(self, starts: Iterable[Version]) -> list[Version]:
        """`starts` and all they were made from, nearest first: no version before one that was made from it."""
        order: dict[str, Version] = {}

        def visit(version: Version, above: tuple[str, ...]) -> None:
            if version.key not in order and version.key not in above:
                for _, maker in self.producers(version):
                    visit(maker, (*above, version.key))
                order[version.key] = version

        for version in starts:
            visit(version, ())
        return list(reversed(order.values()))

    def downstream_versions(self, starts: Iterable[Data]) -> list[Version]:
        """Every version that used any of these outputs, directly or through others, nearest first."""
        versions: dict[str, Version] = {}
        pending = list(starts)
        for data in pending:  # grows as it goes
            for version in self.readers.get(data, []):
                if version.key not in versions:
                    versions[version.key] = version
                    pending += [(path, out["hash"]) for path, out in version.outputs.items()]
        return list(versions.values())

    @cached_property
    def _hashes(self) -> dict[str, set[str]]:
        hashes: dict[str, set[str]] = defaultdict(set)
        for path, md5 in self.by_output:
            hashes[path].add(md5)
        return hashes

    def _lies_in(self, folder_files: Listing, inside: str, md5: str) -> bool:
        """Whether the output with this hash is at the path `inside` in a folder with the files `folder_files`."""
        if not md5.endswith(".dir"):
            return folder_files.get(inside) == md5
        files = self.listing(md5)
        return bool(files) and all(folder_files.get(f"{inside}/{name}") == file_hash for name, file_hash in files.items())

    def _add(self, version: Version) -> Version:
        existing = self._by_key.setdefault(version.key, version)
        if existing is not version:
            existing.runs += version.runs
            existing.metrics = existing.metrics or version.metrics
            existing.listings = {**version.listings, **existing.listings}
            existing.packages = {**version.packages, **existing.packages}
            existing.outputs = {
                path: {**out, "size": out["size"] or version.outputs[path]["size"]} for path, out in existing.outputs.items()
            }
            existing.inputs = {
                path: {**entry, "size": entry["size"] or version.inputs[path]["size"]} for path, entry in existing.inputs.items()
            }
        return existing
