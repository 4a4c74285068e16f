"""The environment of a user's script: what it needs to run, the contract, and no secret that the run config doesn't name."""

import os
import re
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

from infra.errors import BadInput

_NAMES = frozenset(
    [
        *("PATH", "HOME", "USER", "LOGNAME", "LANG", "LANGUAGE", "TZ", "TMPDIR", "LD_LIBRARY_PATH", "PYTHONPATH", "VIRTUAL_ENV", "XDG_CACHE_HOME"),
        *("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY"),
        *("HF_HOME", "HF_HUB_CACHE", "HF_DATASETS_CACHE", "TORCH_HOME", "TRITON_CACHE_DIR", "ROCR_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES"),
        *("UV_CACHE_DIR", "UV_OFFLINE", "UV_NO_INDEX", "UV_INDEX_URL", "UV_DEFAULT_INDEX", "UV_FIND_LINKS", "UV_PYTHON", "PIP_INDEX_URL", "PIP_FIND_LINKS"),
    ]
)
_PREFIXES = ("LC_", "CUDA_", "CUDNN_", "CUBLAS_", "NVIDIA_", "NCCL_", "OMP_", "MKL_", "OPENBLAS_", "KMP_", "PYTORCH_")
_SECRET_NAME = re.compile(r"TOKEN|SECRET|PASSW|CREDENTIAL|AUTH|(^|_)KEY(_|$)", re.IGNORECASE)
_URL_WITH_PASSWORD = re.compile(r"://[^/@\s]+@")
_PASSWORD_IN_URL = re.compile(r"://[^/@\s:]*:([^/@\s]+)@")
_SHORTEST_SECRET = 8


def script_environment(
    contract: Mapping[str, str], *, secrets: Iterable[str] = (), threads: int = 1, offline: bool = True, parent: Mapping[str, str] | None = None
) -> dict[str, str]:
    """What a script sees. `secrets` are names of variables of ours that it may read too; a missing one is a BadInput."""
    ours = os.environ if parent is None else parent
    passed = {name: value for name, value in ours.items() if _may_pass(name, value)}
    missing = [name for name in secrets if name not in ours]
    if missing:
        raise BadInput(f"train.secrets names {', '.join(missing)}, which this machine's environment lacks. Set it for the worker, or take it out of the list.")
    quiet = {
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_OFFLINE": "1" if offline else "0",
        # Without these two the client finds the token file of whoever runs the worker.
        "HF_HUB_DISABLE_IMPLICIT_TOKEN": "1",
        "HF_TOKEN_PATH": os.devnull,
        "DO_NOT_TRACK": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "OMP_NUM_THREADS": str(threads),
        "PYTHONUNBUFFERED": "1",
        # The script's sets and dicts of strings come in the same order in every attempt.
        "PYTHONHASHSEED": "0",
    }
    path = os.pathsep.join([str(Path(sys.executable).parent), passed.get("PATH", os.defpath)])
    return passed | quiet | {"PATH": path} | {name: ours[name] for name in secrets} | dict(contract)


def secret_values(parent: Mapping[str, str] | None = None, names: Iterable[str] = ()) -> list[str]:
    """The values in our environment that no log line may show, longest first."""
    ours = os.environ if parent is None else parent
    wanted = set(names)
    found = {value for name, value in ours.items() if name in wanted or _SECRET_NAME.search(name)}
    found |= {value.partition(":")[2] for value in found}  # the password of user:password alone
    found |= {password for value in ours.values() for password in _PASSWORD_IN_URL.findall(value)}
    return sorted((value for value in found if len(value) >= _SHORTEST_SECRET), key=len, reverse=True)


def is_secret(name: str, value: str) -> bool:
    """Whether a variable's name, or a password in the address that it holds, says that nobody may see it."""
    return bool(_SECRET_NAME.search(name) or _URL_WITH_PASSWORD.search(value))


def redacted(line: str, secrets: Iterable[str]) -> str:
    """The line with every secret value replaced."""
    for secret in secrets:
        line = line.replace(secret, "***")
    return line


def _may_pass(name: str, value: str) -> bool:
    listed = name in _NAMES or name.upper() in _NAMES or name.startswith(_PREFIXES)
    return listed and not is_secret(name, value)
