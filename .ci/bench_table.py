"""Prints criterion's results of several rounds as one table: each of our blocks beside its peers.

Usage: bench_table.py ROUND_FOLDER...

Each folder is what criterion wrote in one round. A bench is named block/workload/who, where `ours` is this crate. The
time is the median of the rounds' medians, so one round that the machine disturbed does not count; the spread is how far
the rounds lie apart; the best is the fastest round's, which says most where others use the machine too. A ratio above 1
says that ours is that many times faster. A workload `..._2t` that also ran as `..._1t` says how many times as much it
got done as on one thread.
"""

import json
import pathlib
import statistics
import sys


def read(folder):
    """The benches of one round: {full id: (nanoseconds, throughput)}."""
    found = {}
    for path in sorted(pathlib.Path(folder).glob("**/new/benchmark.json")):
        about = json.loads(path.read_text())
        estimates = json.loads(path.with_name("estimates.json").read_text())
        found[about["full_id"]] = (estimates["median"]["point_estimate"], about.get("throughput"))
    return found


def duration(nanoseconds):
    for unit, size in (("s", 1e9), ("ms", 1e6), ("us", 1e3)):
        if nanoseconds >= size:
            return f"{nanoseconds / size:.3g} {unit}"
    return f"{nanoseconds:.3g} ns"


def rate(nanoseconds, throughput):
    """What a bench gets done a second: its declared throughput, else its iterations."""
    kind, amount = next(iter(throughput.items())) if throughput else ("Elements", 1)
    per_second = amount * 1e9 / nanoseconds
    unit = "B/s" if kind.startswith("Bytes") else "/s"
    for prefix, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if per_second >= size:
            return f"{per_second / size:.3g} {prefix}{unit}"
    return f"{per_second:.3g} {unit}"


def speedup(workloads, workload, who, median):
    """How many times the rate of one thread two threads reach, where both ran."""
    alone = workloads.get(workload.removesuffix("_2t") + "_1t", {}).get(who)
    if alone is None or not workload.endswith("_2t"):
        return ""
    return f"{statistics.median(alone[0]) / median:.2f}"


def main(folders):
    rounds = [read(folder) for folder in folders]
    rows = [("workload", "who", "time", "spread", "best", "rate", "ours is faster by", "1t to 2t")]
    workloads = {}
    for full_id in rounds[0]:
        times = [found[full_id][0] for found in rounds if full_id in found]
        workload, _, who = full_id.rpartition("/")
        workloads.setdefault(workload, {})[who] = (times, rounds[0][full_id][1])
    for workload, everyone in workloads.items():
        ours = statistics.median(everyone["ours"][0]) if "ours" in everyone else None
        for who in sorted(everyone, key=lambda name: (name != "ours", name)):
            times, throughput = everyone[who]
            median = statistics.median(times)
            spread = (max(times) - min(times)) / median
            ratio = f"{median / ours:.2f}" if ours and who != "ours" else ""
            gain = speedup(workloads, workload, who, median)
            times = (duration(median), f"{spread:.0%}", duration(min(times)))
            rows.append((workload, who, *times, rate(median, throughput), ratio, gain))
    if len(rows) == 1:
        sys.exit("no bench ran: does the filter match any?")
    if not any(row[-1] for row in rows[1:]):
        rows = [row[:-1] for row in rows]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for index, row in enumerate(rows):
        print("| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths)) + " |")
        if index == 0:
            print("|" + "|".join("-" * (width + 2) for width in widths) + "|")


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    main(sys.argv[1:])
