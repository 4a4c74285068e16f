"""Whatever goes wrong on the way to the Hub, or with us: nothing twice, nothing half, nothing lost, nothing untrue."""

import subprocess
import sys
from pathlib import Path

import pytest

from infra.settings import process_environment

PROJECT = Path(__file__).resolve().parent.parent.parent
SLICE, OUTSIDE_SLICE = 60, 16
pytestmark = pytest.mark.timeout(3000)


def start(*words: str) -> "subprocess.Popen[str]":
    """One program of this folder."""
    command = [sys.executable, "-m", *words]
    return subprocess.Popen(command, cwd=PROJECT, env=process_environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def test_a_slice_of_all_faults_at_all_calls_does_no_harm():
    """Sixty cases drawn from every outside call times every fault, second faults and storms: the servers' own stores hold no complaint."""
    faults = start("tests.faults", "--seed", "7", "--slice", str(SLICE))
    said = faults.communicate(timeout=2900)[0]
    assert faults.returncode == 0 and f"{SLICE} cases on" in said and " 0 with complaints" in said, said


def test_a_slice_of_all_faults_at_storage_and_providers_does_no_harm():
    """Sixteen cases of sealing on S3, renting and ending machines: one machine a run, and what counts as sealed is whole and the newest."""
    faults = start("tests.faults.outside", "--seed", "7", "--slice", str(OUTSIDE_SLICE))
    said = faults.communicate(timeout=2900)[0]
    assert faults.returncode == 0 and f"{OUTSIDE_SLICE} cases, 0 with complaints" in said, said


def test_a_kill_before_any_file_operation_leaves_the_last_sealed_checkpoint():
    """Sealing, rotating and fencing, here and in a store, killed everywhere: what was sealed is found whole, and a restart ends."""
    sealing = start("tests.faults.sealing")
    said = sealing.communicate(timeout=2900)[0]
    assert sealing.returncode == 0 and " 0 complaints" in said, said
