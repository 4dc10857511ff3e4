"""The figures as text, against their targets."""

from collections.abc import Iterator

from benchmarks.gpu.experts import table
from benchmarks.gpu.run import COMPILED, PLAIN, SALMONN, TRIM, Found, Options

EQUAL = 1.25  # times the plain loop's own distance from float32, and a rounding's worth of loss
EQUAL_LOSS = 2e-3
GIB = 2**30


def text(found: Found, options: Options, peak: float | None) -> str:
    """Tables and targets; `peak` is the device's data sheet FLOP/s."""
    lines = [
        f"{options.dialogues} dialogues a step, {found.tokens:,.0f} tokens, {found.heard:,.0f} s heard (means)",
        f"ceilings: bf16 product {found.matmul / 1e12:.0f} TFLOP/s, copy {found.copy / 1e12:.2f} TB/s",
        "",
        f"{'arm':<28}{'s/step':>8}{'min..max':>14}{'tokens/s':>10}{'audio-s/s':>11}{'TFLOP':>8}{'MFU':>7}"
        f"{'of ceiling':>12}{'peak GiB':>10}{'micro':>7}",
    ]
    for name, timing in found.timings.items():
        flops = found.flops.get(name)
        share = f"{flops / timing.median / peak:.1%}" if flops and peak else "-"
        ceiling = f"{flops / timing.median / found.matmul:.1%}" if flops and found.matmul else "-"
        trained = name in found.micro_batches
        lines.append(
            f"{name:<28}{timing.median:>8.3f}{min(timing.seconds):>7.3f}..{max(timing.seconds):.3f}"
            f"{f'{found.tokens / timing.median:,.0f}' if trained else '-':>10}{found.heard / timing.median:>11,.0f}"
            f"{f'{flops / 1e12:.1f}' if flops else '-':>8}{share:>7}{ceiling:>12}{timing.peak_bytes / GIB:>10.1f}"
            f"{found.micro_batches.get(name, '-'):>7}"
        )
    lines += ["", "stages, ms"]
    for name, timing in found.timings.items():
        lines.append(f"  {name}: " + ", ".join(f"{stage} {1e3 * s:.1f}" for stage, s in timing.stages.items()))
    if found.experts:
        lines += ["", *table(found.experts, found.matmul)]
    lines += ["", "against float32 arithmetic on a few dialogues, relative: loss, whole gradient"]
    for name, (loss, gradient) in found.gaps.items():
        verdict = "equal" if is_equal(found, name) else "NOT EQUAL"
        lines.append(f"  {name}: {loss:.1e}, {gradient:.1e}{'' if name == PLAIN else f' {verdict}'}")
    lines += ["", *(f"{name}: {value:.4g}" for name, value in found.other.items()), ""]
    lines += [f"{name}: not measured ({reason})" for name, reason in found.failed.items()]
    lines += [
        f"{'met' if good else 'MISSED':<7} {name}: {shown}, target {target}"
        for name, shown, target, good in targets(found, peak)
    ]
    return "\n".join(lines)


def is_equal(found: Found, name: str) -> bool:
    """Whether an arm is as near to float32 as the plain loop."""
    loss, gradient = found.gaps[name]
    return loss <= EQUAL_LOSS and gradient <= EQUAL * found.gaps[PLAIN][1]


def targets(found: Found, peak: float | None) -> Iterator[tuple[str, str, str, bool]]:
    """Name, figure, target and whether it is met, of what was measured."""
    times = {name: timing.median for name, timing in found.timings.items()}
    if COMPILED in times:
        yield "cached step, first gate", f"{times[COMPILED]:.3f} s", "<= 0.75 s", times[COMPILED] <= 0.75
        yield "cached step", f"{times[COMPILED]:.3f} s", "<= 0.63 s", times[COMPILED] <= 0.63
        if peak:
            share = found.flops[COMPILED] / times[COMPILED] / peak
            yield "MFU, cached", f"{share:.1%}", ">= 52 %", share >= 0.52
        size = found.timings[COMPILED].peak_bytes / GIB
        yield "peak memory, cached", f"{size:.1f} GiB", "<= 70 GiB", size <= 70
        for baseline, least in ((PLAIN, 3.0), (SALMONN, 5.0)):
            if baseline in times:
                ratio = times[baseline] / times[COMPILED]
                yield f"cached against {baseline}", f"{ratio:.2f}x", f">= {least:g}x", ratio >= least
    if TRIM in times:
        yield "online trim", f"{times[TRIM]:.3f} s", "<= 0.85 s", times[TRIM] <= 0.85
    if "loader wait" in found.other:
        share = found.other["loader wait"]
        yield "loader wait", f"{share:.1%}", "<= 2 %", share <= 0.02
    if "minutes for ShareChatX" in found.other:
        minutes = found.other["minutes for ShareChatX"]
        yield "features of ShareChatX's user side", f"{minutes:.1f} min", "<= 50 min", minutes <= 50
