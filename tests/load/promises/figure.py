"""What a figure is: a line on the screen, an object in target/bench/results.jsonl, and a promise that holds or fails."""
import json, os, subprocess, sys

TOP = os.path.abspath(os.path.join(os.path.dirname(__file__), '..', '..', '..'))
QUICK = bool(os.environ.get('QUICK'))
OUT = TOP + '/target/bench/results.jsonl'
# Names of broken promises: those that fail the run, and those that are only shown.
broken, shown = [], []


def report(name, value, unit, promise, at_most=True, of='', noisy=True):
    """Prints a figure; `of` says how it was found. A noisy one depends on what else the machine does: a quick run does not enforce it."""
    holds = value <= promise if at_most else value >= promise
    with open(OUT, 'a') as out:
        out.write(json.dumps({'name': name, 'value': round(value, 3), 'unit': unit, 'promise': promise, 'holds': holds}) + '\n')
    sign = '≤' if at_most else '≥'
    print(f'{name} {value:.4g} {unit} (promise {sign} {promise:g}): {"holds" if holds else "FAILS"}{"  [" + of + "]" if of else ""}', flush=True)
    if not holds:
        (shown if noisy and QUICK else broken).append(name)


def note(name, value, unit):
    """A figure that nobody promised."""
    with open(OUT, 'a') as out:
        out.write(json.dumps({'name': name, 'value': round(value, 3), 'unit': unit, 'promise': None, 'holds': None}) + '\n')
    print(f'{name} {value:.4g} {unit}', flush=True)


def spread(values):
    return f'median of {len(values)}: {min(values):.4g} to {max(values):.4g}'


def run_lines(command, promised):
    """A program that prints JSON lines of its own; those whose name is promised are reported."""
    out = subprocess.run(command, cwd=TOP, capture_output=True, text=True)
    if out.returncode:
        sys.exit(f'{" ".join(command)}: {out.stderr[-2000:]}')
    for line in out.stdout.splitlines():
        try:
            figure = json.loads(line)
        except ValueError:
            print('  ' + line)
            continue
        if figure.get('promise') and promised(figure['name']):
            report(figure['name'], figure['value'], figure['unit'], figure['promise'], at_most=figure['unit'] in ('ms', 's', 'MB'))
        else:
            print(f"  {figure['name']}: {figure['value']} {figure['unit']}")
