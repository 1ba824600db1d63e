"""The manifests against Kubernetes' own schema, the job template filled by Prefect's own worker code."""

import asyncio
import copy
import json
import re
import shlex
from pathlib import Path
from typing import Any
from uuid import uuid4

import jsonschema
import kubernetes_validate
import pytest
import yaml

ROOT = Path(__file__).parents[2]
MANIFESTS = sorted((ROOT / "infra/kubernetes").glob("*.yaml"))
TEMPLATE: dict[str, Any] = json.loads((ROOT / "infra/kubernetes/base-job-template.json").read_text())
VERSIONS = ("1.28", "1.34", "1.37")


def check(document: dict[str, Any]) -> None:
    for version in VERSIONS:
        kubernetes_validate.validate(document, version, strict=True)


def documents() -> list[Any]:
    return [
        pytest.param(document, id=f"{path.stem}-{document['kind']}-{document['metadata']['name']}")
        for path in MANIFESTS
        for document in yaml.safe_load_all(path.read_text(encoding="utf-8"))
    ]


def job_of(values: dict[str, Any]) -> dict[str, Any]:
    """The Job that a Kubernetes worker would send to the cluster for a flow run with these job variables."""
    from prefect.client.schemas.objects import FlowRun
    from prefect_kubernetes.worker import KubernetesWorkerJobConfiguration

    client = object()  # asked only for blocks, of which the template names none
    filled = asyncio.run(KubernetesWorkerJobConfiguration.from_template_and_values(copy.deepcopy(TEMPLATE), values, client=client))
    filled.prepare_for_flow_run(FlowRun(id=uuid4(), name="rl (node 1 of 2)", flow_id=uuid4()))
    return dict(filled.job_manifest)


@pytest.fixture(scope="module", params=[0, 1, 8], ids="{} GPUs".format)
def job(request: pytest.FixtureRequest) -> tuple[int, dict[str, Any]]:
    gpus = request.param
    return gpus, job_of({"cpus": 16, "memory": "96Gi", **({"gpus": gpus} if gpus else {})})


def container(manifest: dict[str, Any]) -> dict[str, Any]:
    (only,) = manifest["spec"]["template"]["spec"]["containers"]
    return dict(only)


def pod_specs() -> list[dict[str, Any]]:
    found = [document.values[0] for document in documents()]
    return [job_of({}), *(document for document in found if document["kind"] == "Deployment")]


@pytest.mark.parametrize("document", documents())
def test_every_manifest_is_valid_and_in_the_one_namespace(document):
    check(document)
    assert document["metadata"]["namespace"] == TEMPLATE["variables"]["properties"]["namespace"]["default"]


def test_the_filled_job_is_valid_and_asks_for_what_the_stage_needs(job):
    gpus, manifest = job
    check(manifest)
    resources = container(manifest)["resources"]
    assert resources["requests"] == {"cpu": 16, "memory": "96Gi"} and resources["limits"]["memory"] == "96Gi"
    assert resources["limits"].get("nvidia.com/gpu", 0) == gpus and ("nvidia.com/gpu" in resources["limits"]) == bool(gpus)
    assert manifest["spec"]["backoffLimit"] == 0 and manifest["spec"]["template"]["spec"]["restartPolicy"] == "Never"
    assert shlex.join(container(manifest)["args"]).endswith("prefect flow-run execute")


def test_zero_gpus_said_outright_is_valid_too():
    manifest = job_of({"gpus": 0})
    check(manifest)
    assert container(manifest)["resources"]["limits"]["nvidia.com/gpu"] == 0


def test_no_placeholder_is_left(job):
    _, manifest = job
    assert "{{" not in json.dumps(manifest)


def test_every_volume_is_mounted_and_every_mount_has_its_volume(job):
    _, manifest = job
    mounts = container(manifest)["volumeMounts"]
    volumes = {volume["name"]: volume for volume in manifest["spec"]["template"]["spec"]["volumes"]}
    assert {mount["name"] for mount in mounts} == set(volumes)
    where = {mount["mountPath"]: volumes[mount["name"]] for mount in mounts}
    env = {entry["name"]: entry.get("value") for entry in container(manifest)["env"]}
    assert where["/dev/shm"]["emptyDir"]["medium"] == "Memory"
    claims = [d.values[0]["metadata"]["name"] for d in documents() if d.values[0]["kind"] == "PersistentVolumeClaim"]
    assert where[env["GR2_NODE_CACHE"]]["persistentVolumeClaim"]["claimName"] in claims
    assert where[f"{env['GR2_NODE_HOME']}/.gr2"]["emptyDir"], "the working copies of a node, on a root file system that is read-only"
    assert f"WORKDIR {env['GR2_NODE_HOME']}\n" in (ROOT / "infra/container/Containerfile").read_text()


def test_choices_of_a_pool_reach_the_pod():
    chosen = {
        "node_selector": {"nvidia.com/gpu.product": "NVIDIA-H100-80GB-HBM3"},
        "tolerations": [{"key": "team", "operator": "Equal", "value": "ranking", "effect": "NoExecute"}],
        "priority_class": "batch",
        "service_account_name": "gr2-node",
        "cache_claim": "other-cache",
        "shared_memory": "64Gi",
        "secret": "other-secret",
        "image": "registry.example.org/gr2:1",
        "env": {"NCCL_SOCKET_IFNAME": "eth0", "GR2_RENDEZVOUS_TIMEOUT_S": "60"},
    }
    manifest = job_of(chosen)
    check(manifest)
    spec = manifest["spec"]["template"]["spec"]
    assert (spec["nodeSelector"], spec["tolerations"]) == (chosen["node_selector"], chosen["tolerations"])
    assert (spec["priorityClassName"], spec["serviceAccountName"]) == ("batch", "gr2-node")
    volumes = {volume["name"]: volume for volume in spec["volumes"]}
    assert volumes["cache"]["persistentVolumeClaim"]["claimName"] == "other-cache"
    assert volumes["shared-memory"]["emptyDir"]["sizeLimit"] == "64Gi"
    assert container(manifest)["image"] == chosen["image"] and container(manifest)["envFrom"] == [{"secretRef": {"name": "other-secret"}}]
    env = [(entry["name"], entry.get("value")) for entry in container(manifest)["env"]]
    assert ("NCCL_SOCKET_IFNAME", "eth0") in env
    assert [value for name, value in env if name == "GR2_RENDEZVOUS_TIMEOUT_S"] == ["60"], "a pool's own value overrules the template's"


def test_every_variable_is_used_and_every_placeholder_is_a_variable():
    used = set(re.findall(r"\{\{ (\w+) \}\}", json.dumps(TEMPLATE["job_configuration"])))
    assert used == set(TEMPLATE["variables"]["properties"])
    jsonschema.Draft202012Validator.check_schema(TEMPLATE["variables"])


@pytest.mark.parametrize("values", [{"gpus": 8, "cpus": 4, "memory": "8Gi"}, {"gpus": 0, "cpus": 1, "memory": "1Gi"}, {}])
def test_the_variables_take_what_a_placed_stage_says(values):
    jsonschema.validate(values, TEMPLATE["variables"])


@pytest.mark.parametrize("values", [{"gpus": -1}, {"gpus": "all"}, {"cpus": 0}, {"memory": 8}, {"node_selector": "gpu"}])
def test_the_variables_refuse_what_no_pod_can_have(values):
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(values, TEMPLATE["variables"])


def test_pods_keep_to_the_restricted_standard():
    """https://kubernetes.io/docs/concepts/security/pod-security-standards/#restricted"""
    for manifest in pod_specs():
        spec = manifest["spec"]["template"]["spec"]
        assert spec["securityContext"]["runAsNonRoot"] is True and spec["securityContext"]["runAsUser"] > 0
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert not {"hostNetwork", "hostPID", "hostIPC"} & set(spec)
        assert all({"persistentVolumeClaim", "emptyDir"} & set(volume) for volume in spec["volumes"])
        for one in spec["containers"]:
            assert one["securityContext"]["allowPrivilegeEscalation"] is False and one["securityContext"]["capabilities"] == {
                "drop": ["ALL"]
            }
            assert "privileged" not in one["securityContext"] and one["securityContext"]["readOnlyRootFilesystem"] is True
    assert job_of({})["spec"]["template"]["spec"]["automountServiceAccountToken"] is False


def test_the_worker_may_do_nothing_but_its_jobs():
    roles = [d.values[0] for d in documents() if d.values[0]["kind"] in ("Role", "ClusterRole")]
    assert [role["kind"] for role in roles] == ["Role"]
    allowed = {(resource, verb) for rule in roles[0]["rules"] for resource in rule["resources"] for verb in rule["verbs"]}
    assert {("jobs", verb) for verb in ("create", "get", "list", "watch", "delete")} <= allowed
    assert not [pair for pair in allowed if pair[0] == "secrets" or "*" in pair or (pair[0] != "jobs" and pair[1] in ("create", "delete"))]


def test_workers_serve_the_kubernetes_pools_of_the_placement():
    placement = yaml.safe_load((ROOT / "infra/placements/kubernetes.yaml").read_text())
    pools = {name: pool for name, pool in placement["pools"].items() if pool["type"] == "kubernetes"}
    served = []
    for document in documents():
        if document.values[0]["kind"] == "Deployment":
            args = container(document.values[0])["args"]
            served.append(args[args.index("--pool") + 1])
            assert args[args.index("--type") + 1] == "kubernetes"
    assert sorted(served) == sorted(pools)
    for pool in pools.values():
        assert (ROOT / pool["template"]).samefile(ROOT / "infra/kubernetes/base-job-template.json")
        check(job_of(pool.get("job_variables", {})))


def test_no_manifest_holds_a_secret():
    secrets = [d.values[0] for d in documents() if d.values[0]["kind"] == "Secret"]
    assert secrets and all(set(secret["stringData"].values()) == {"change-me"} and "data" not in secret for secret in secrets)
    names = re.compile(r"(?i)(password|secret_access_key|token|api_key|auth_string)$")
    for manifest in pod_specs():
        for entry in container(manifest)["env"]:
            assert not names.search(entry["name"]), entry


@pytest.mark.parametrize(
    ("wrong", "right"),
    [
        ("restartPolicy", "restartpolicy"),
        ("backoffLimit", "backOffLimit"),
        ("mountPath", "mountpath"),
        ("claimName", "claim"),
        ("medium", "Medium"),
    ],
)
def test_a_misspelt_key_of_the_template_is_found(wrong, right):
    broken = json.loads(json.dumps(job_of({"gpus": 1})).replace(f'"{wrong}"', f'"{right}"'))
    with pytest.raises(kubernetes_validate.ValidationError):
        check(broken)


@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: path.stem)
def test_a_misspelt_key_of_a_manifest_is_found(path):
    keys = {"worker": "serviceAccountName", "cache-volume": "accessModes", "secrets.example": "stringData", "network-policy": "podSelector"}
    text = path.read_text(encoding="utf-8")
    assert keys[path.stem] in text
    with pytest.raises(kubernetes_validate.ValidationError):
        for document in yaml.safe_load_all(text.replace(keys[path.stem], keys[path.stem].upper())):
            check(document)


def test_the_image_is_built_from_the_lock_file_by_a_user_that_is_not_root():
    text = (ROOT / "infra/container/Containerfile").read_text()
    lines = [line.split(maxsplit=1) for line in re.sub(r"\\\n", " ", text).splitlines() if line and not line.startswith("#")]
    assert {word for word, *_ in lines} <= {"FROM", "RUN", "ENV", "WORKDIR", "COPY", "ARG", "USER"}
    users = [rest for word, rest in lines if word == "USER"]
    assert users[-1] == str(job_of({})["spec"]["template"]["spec"]["securityContext"]["runAsUser"])
    installs = " ".join(rest for word, rest in lines if word == "RUN")
    assert "python infra/install.py" in installs


@pytest.mark.parametrize("page", ["kubernetes", "slurm", "gpu-host", "laptop"])
def test_the_pages_name_what_there_is(page):
    text = (ROOT / f"docs/{page}.md").read_text(encoding="utf-8")
    named = {path.rstrip(".") for path in re.findall(r"\b(?:infra|tests)/[\w./-]+", text)}
    assert not [path for path in named if not (ROOT / path).exists()]
    links = re.findall(r"\]\(([\w./-]+)\)", text)
    assert not [link for link in links if not (ROOT / "docs" / link).exists()]


def test_the_pool_of_the_page_makes_a_valid_job():
    text = (ROOT / "docs/kubernetes.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)
    chosen = yaml.safe_load(block)["pools"]["k8s-gpu"]["job_variables"]
    jsonschema.validate(chosen, TEMPLATE["variables"])
    assert not set(chosen) - set(TEMPLATE["variables"]["properties"])
    check(job_of(chosen))
