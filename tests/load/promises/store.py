"""Commits of the embedded engine."""
from figure import run_lines


def bench_store(work):
    """Transactions of one 1 KiB object with one guard, 64 clients."""
    run_lines(['cargo', 'run', '-q', '--locked', '--release', '-p', 'maru-store', '--example', 'bench_commit', '64', work], lambda name: 'commits' in name)
