"""The hardware that Jobs may ask for, with the prices of the real service (docs of Hugging Face Jobs, 2026-11). Here only CPUs are to be had."""

from typing import Any

# name: pretty name, CPU, memory, accelerator (model, how many, memory each) or None, US dollars per hour
_FLAVORS: dict[str, tuple[str, str, str, tuple[str, int, str] | None, float]] = {
    "cpu-basic": ("CPU Basic", "2 vCPU", "16 GB", None, 0.01),
    "cpu-upgrade": ("CPU Upgrade", "8 vCPU", "32 GB", None, 0.03),
    "t4-small": ("Nvidia T4 - small", "4 vCPU", "15 GB", ("T4", 1, "16 GB"), 0.40),
    "t4-medium": ("Nvidia T4 - medium", "8 vCPU", "30 GB", ("T4", 1, "16 GB"), 0.60),
    "l4x1": ("1x Nvidia L4", "8 vCPU", "30 GB", ("L4", 1, "24 GB"), 0.80),
    "a10g-small": ("Nvidia A10G - small", "4 vCPU", "15 GB", ("A10G", 1, "24 GB"), 1.00),
    "a10g-large": ("Nvidia A10G - large", "12 vCPU", "46 GB", ("A10G", 1, "24 GB"), 1.50),
    "a100-large": ("Nvidia A100 - large", "12 vCPU", "142 GB", ("A100", 1, "80 GB"), 2.50),
}


def is_known(flavor: str) -> bool:
    """Whether there is hardware of this name."""
    return flavor in _FLAVORS


def can_be_had(flavor: str) -> bool:
    """Whether a Job of this hardware ever starts here: this machine has no accelerator to give, so such a Job waits as one does without capacity."""
    return _FLAVORS[flavor][3] is None


def listing() -> list[dict[str, Any]]:
    """The answer of /api/jobs/hardware."""
    return [_entry(name) for name in _FLAVORS]


def _entry(name: str) -> dict[str, Any]:
    pretty, cpu, ram, accelerator, usd_per_hour = _FLAVORS[name]
    per_minute = usd_per_hour / 60
    return {
        "name": name,
        "prettyName": pretty,
        "cpu": cpu,
        "ram": ram,
        "ephemeralStorage": "50 GB",
        "accelerator": accelerator
        and {"type": "gpu", "model": accelerator[0], "quantity": str(accelerator[1]), "vram": accelerator[2], "manufacturer": "Nvidia"},
        "unitCostMicroUSD": round(per_minute * 1e6),
        "unitCostUSD": round(per_minute, 6),
        "unitLabel": "minute",
    }
