"""Image bytes in and out."""
from figure import QUICK, run_lines


def bench_image(work):
    """Image upload and download beside the machine's own rates."""
    size, rounds = ('128', '3') if QUICK else ('512', '7')
    run_lines(['cargo', 'run', '-q', '--locked', '--release', '-p', 'maru-load-transfer', size, rounds, work], lambda name: True)
