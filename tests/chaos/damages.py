"""Ways to damage a file: functions of its path and a random generator, which say what they did. And odd texts."""

import csv
import io
import json
import math
import os
import shutil


def truncated(path, rng):
    """Cut anywhere."""
    size = rng.randrange(path.stat().st_size)
    os.truncate(path, size)
    return f"cut at {size}"


def flipped(path, rng):
    """One bit or a few are others."""
    content = bytearray(path.read_bytes())
    places = [rng.randrange(len(content)) for _ in range(rng.choice((1, 1, 1, 8)))]
    for place in places:
        content[place] ^= 1 << rng.randrange(8)
    path.write_bytes(content)
    return f"flipped at {', '.join(map(str, places))}"


def linked(path, rng):
    """A link to itself elsewhere, to nothing, to a device, to a folder."""
    target = rng.choice(("elsewhere", "nowhere", "/dev/zero", "/dev/null", "."))
    if target == "elsewhere":
        path.rename(path.with_name("elsewhere"))
    else:
        path.unlink()
    path.symlink_to(target)
    return f"link to {target}"


def irregular(path, rng):
    """A folder or a pipe."""
    path.unlink()
    kind = rng.choice(("folder", "pipe"))
    (os.mkdir if kind == "folder" else os.mkfifo)(path)
    return kind


def swapped(path, rng):
    """What another file of the folder holds, of the same kind if there is one."""
    present = [each for each in sorted(path.parent.iterdir()) if each.is_file()]
    others = [each for each in present if each.name not in (path.name, ".lock")]
    other = rng.choice([each for each in others if each.suffix == path.suffix] or others)
    shutil.copy(other, path)
    return f"content of {other.name}"


def removed(path, rng):
    """Not there."""
    path.unlink()
    return "removed"


def other_value(path, rng):
    """Another value in a field of a JSON file or a cell of a CSV file."""
    if path.suffix == ".csv":
        heads, *rows = csv.reader(io.StringIO(path.read_text()))
        row, column = rng.randrange(len(rows)), rng.randrange(len(heads))
        rows[row][column] = text = rng.choice(("", "nan", "inf", "-1", "1e300", "x", "\x1b[31m", "<b>", "0.5", "3"))
        with open(path, "w", newline="") as file:
            csv.writer(file, lineterminator="\n").writerows([heads, *rows])
        return f"{heads[column]} in row {row} is {text!r}"
    document = json.loads(path.read_text())
    keys, inner = [], document
    while not keys or (isinstance(inner, (dict, list)) and inner and rng.random() < 0.5):
        holder, key = inner, rng.choice(list(inner) if isinstance(inner, dict) else range(len(inner)))
        keys, inner = [*keys, str(key)], inner[key]
    if rng.random() < 0.15:
        del holder[key]
        text = "missing"
    else:
        holder[key] = _any_json(rng)
        text = json.dumps(holder[key])[:60]
    path.write_text(json.dumps(document, indent=1) + "\n")
    return f"{'.'.join(keys)} is {text}"


def _any_json(rng, depth=0):
    kinds = [
        lambda: None, lambda: rng.random() < 0.5, lambda: rng.choice((-3, 5.0, 1e300, 10**30, math.nan, math.inf, 0)),
        lambda: rng.uniform(-2, 2), lambda: any_text(rng), lambda: "[" * rng.randint(1, 3000),
    ]  # fmt: skip
    if depth < 3:
        kinds += [
            lambda: [_any_json(rng, depth + 1) for _ in range(rng.randint(0, 3))],
            lambda: {any_text(rng): _any_json(rng, depth + 1) for _ in range(rng.randint(0, 3))},
        ]
    return rng.choice(kinds)()


def any_text(rng):
    """A text of any characters, or one that has a meaning somewhere."""
    if rng.random() < 0.5:
        return rng.choice((
            "", " ", ",", "-", "--", "=", "..", "/", "~", "nan", "inf", "-inf", "1e999", "-0", "1_0", "0x1", "1.5",
            "3,3", "3-1", "9" * 20, "30%", "0..0", "1..", "full", "none", "all", "auto", "a=b", "a=1,a=2", "x" * 300,
            "../../x", "...npz", "\x1b[31m", "a\nb", "\u202e", "$\\frac{$", "<img src=x>", "| a | b", "K0",
            "no.py:build",
        ))  # fmt: skip
    return "".join(chr(rng.choice((rng.randint(32, 126), rng.randint(0, 0x2FF)))) for _ in range(rng.randint(1, 12)))


DAMAGES = (truncated, flipped, other_value, linked, irregular, swapped, removed)
