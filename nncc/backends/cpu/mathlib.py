"""Transcendental functions as straight-line vector code, in float32 and float64.

LLVM's own vector functions become one call of the C library for each lane, and a compiled object
needs no library. Largest errors (held by tests, in units in the last place of the result):
2 for exp and log, 3 for erf, sin, cos and pow, 4 for tanh. sin and cos reduce their argument with
99 bits of pi/2: beyond 2**20 float64 results lose digits, and from 2**30 on they are NaN.

Coefficients interpolate the stated function in the Chebyshev nodes of the interval, highest
power first; tuples are (float32, float64).
"""

from __future__ import annotations

from nncc.backends.cpu.floats import Floats

INF, NAN = float("inf"), float("nan")
LOG2_E = 1.4426950408889634
# log 2 as a sum: the first part times any exponent is exact
LN2 = (
    (0.693115234375, 3.1946184945309415e-05),
    (0.6931471803691238, 1.9082149292705877e-10),
)
# pi/2 as a sum: 33 + 33 bits and the rest
HALF_PI = (1.5707963267341256, 6.077100506303966e-11, 2.0222662487959506e-21)
TWO_BY_PI = 0.6366197723675814
TWO_BY_SQRT_PI = 1.1283791670955126

# (exp(r) - 1 - r) / r**2 on |r| <= log(2)/2
EXP = (
    (0.001392617611993558, 0.008363173074513711, 0.041666554662050534, 0.1666657702559799, 0.5),
    (2.5100375832561234e-08, 2.7620075879983367e-07, 2.7557268480310024e-06,
     2.4801521322368692e-05, 0.00019841269863040545, 0.0013888888917196719,
     0.008333333333330065, 0.041666666666624164, 0.16666666666666669, 0.5),
)  # fmt: skip
# (2 atanh(s)/s - 2) / s**2 in s**2, for (1+s)/(1-s) between sqrt(1/2) and sqrt(2)
LOG = (
    (0.23330467216303835, 0.28550820815960665, 0.40000121839806124, 0.6666666655449709),
    (0.14616449685043406, 0.15331721600556042, 0.18182889125261723, 0.2222221113479508,
     0.28571428625975487, 0.39999999999899505, 0.666666666666667),
)  # fmt: skip
# (erf(x)/x - 2/sqrt(pi)) / x**2 in x**2, on |x| <= 1
ERF = (
    (8.379755581768224e-05, -0.0008161986540033511, 0.005204578778761909, -0.026861699954947374,
     0.1128375366163041, -0.37612638376109975),
    (-4.374621450325064e-12, 8.800680090460203e-11, -1.219035624032117e-09,
     1.4796618901290416e-08, -1.6365085592632062e-07, 1.6462076794793434e-06,
     -1.4925649082364785e-05, 0.0001205533295270044, -0.0008548327023024696,
     0.005223977625438469, -0.026866170645131082, 0.11283791670955125, -0.37612638903183754),
)  # fmt: skip
# erfc(x) * exp(x**2) in 1/(x + 2), on 1 <= x <= 4 (float32) or 6 (float64)
ERFC = (
    (-3.432347396924676, -1.8260863988446758, 6.455920853461252, 0.8119632995434544,
     1.3230285348114388, 0.547268680168792, 0.0006051183909673801),
    (239.24359154423945, 215.8510489885741, -2450.298800629956, 4797.2741217981975,
     -4833.989244655832, 2937.765363319682, -1134.6489834653753, 307.4045163965331,
     -75.31270380198113, 10.649750811070025, 1.3493059469349291, 2.942002658996995,
     1.9666731458010267, 1.1287410218432883, 0.5641795198583508, 1.2965841302986556e-07),
)  # fmt: skip
# (sin(r)/r - 1) / r**2 and (cos(r) - 1 + r**2/2) / r**4 in r**2, on |r| <= pi/4
SIN = (
    (2.724992580305979e-06, -0.00019840086735384846, 0.008333331874710208, -0.1666666666385529),
    (1.5918129294866608e-10, -2.5051131845003624e-08, 2.755731610255244e-06,
     -0.00019841269836758574, 0.008333333333330948, -0.16666666666666666),
)  # fmt: skip
COS = (
    (-2.730095920390147e-07, 2.480060037715673e-05, -0.001388888767201679, 0.0416666666643212),
    (-1.1382632425521717e-11, 2.08761462684032e-09, -2.7557317271729793e-07,
     2.480158729876569e-05, -0.0013888888888887398, 0.041666666666666664),
)  # fmt: skip


def _of(f: Floats, table: tuple[tuple[float, ...], tuple[float, ...]]) -> tuple[float, ...]:
    return table[0 if f.bits == 32 else 1]


def _reduce(f: Floats, x: str) -> tuple[str, str, str]:
    """x = n*log(2) + r: n as an integer and as a float, and r."""
    n = f.rint(f.mul(x, f.const(LOG2_E)))
    high, low = _of(f, LN2)
    r = f.fma(n, f.const(-low), f.fma(n, f.const(-high), x))
    return f.to_int(n), n, r


def _expm1_reduced(f: Floats, r: str) -> str:
    """exp(r) - 1 on |r| <= log(2)/2, with a small relative error."""
    return f.fma(f.mul(r, r), f.polynomial(r, _of(f, EXP)), r)


def _clamp(f: Floats, x: str, low: float, high: float) -> str:
    """x within bounds; a NaN becomes a bound."""
    x = f.select(f.compare("olt", x, f.const(high)), x, f.const(high))
    return f.select(f.compare("ogt", x, f.const(low)), x, f.const(low))


def exp(f: Floats, x: str) -> str:
    """e**x = 2**n * e**r."""
    limits = (-104.0, 89.0) if f.bits == 32 else (-746.0, 710.0)
    n, _, r = _reduce(f, _clamp(f, x, *limits))
    result = f.scale(f.add(f.const(1.0), _expm1_reduced(f, r)), n)
    return f.select(f.compare("uno", x, x), x, result)


def _split(f: Floats, x: str) -> tuple[str, str]:
    """x = 2**e * (1 + t) with 1 + t in [sqrt(1/2), sqrt(2)) for positive finite x: e and t."""
    smallest = 2.0 ** (-126 if f.bits == 32 else -1022)
    lift = f.mantissa_bits + 1
    tiny = f.compare("olt", x, f.const(smallest))
    lifted = f.select(tiny, f.mul(x, f.const(2.0**lift)), x)
    # relative to sqrt(1/2), the exponent field counts what is wanted
    root = 0x3F3504F3 if f.bits == 32 else 0x3FE6A09E667F3BCD
    bits = f.integer("sub", f.to_bits(lifted), f.int_const(root))
    e = f.from_int(f.integer("ashr", bits, f.int_const(f.mantissa_bits)))
    e = f.sub(e, f.select(tiny, f.const(float(lift)), f.const(0.0)))
    mantissa = f.integer("and", bits, f.int_const((1 << f.mantissa_bits) - 1))
    m = f.from_bits(f.integer("add", mantissa, f.int_const(root)))
    return e, f.sub(m, f.const(1.0))


def _log_special(f: Floats, x: str, result: str) -> str:
    """log at 0, below, at infinity and of NaN."""
    result = f.select(f.compare("oeq", x, f.const(INF)), x, result)
    result = f.select(f.compare("oeq", x, f.const(0.0)), f.const(-INF), result)
    return f.select(f.compare("ult", x, f.const(0.0)), f.const(NAN), result)


def log(f: Floats, x: str) -> str:
    """log(2**e * (1 + t)) = e*log(2) + t - (t**2/2 - s*(t**2/2 + R)), s = t/(2+t)."""
    e, t = _split(f, x)
    s = f.div(t, f.add(t, f.const(2.0)))
    z = f.mul(s, s)
    rest = f.mul(z, f.polynomial(z, _of(f, LOG)))
    half_square = f.mul(f.mul(t, t), f.const(0.5))
    high, low = _of(f, LN2)
    small = f.fma(s, f.add(half_square, rest), f.mul(e, f.const(low)))
    result = f.fma(e, f.const(high), f.sub(t, f.sub(half_square, small)))
    return _log_special(f, x, result)


def tanh(f: Floats, x: str) -> str:
    """tanh|x| = -t / (t + 2) with t = exp(-2|x|) - 1."""
    y = f.mul(f.abs(x), f.const(-2.0))
    y = _clamp(f, y, -20.0 if f.bits == 32 else -40.0, 0.0)
    n, _, r = _reduce(f, y)
    power = f.power_of_two(n)
    t = f.fma(power, _expm1_reduced(f, r), f.sub(power, f.const(1.0)))
    result = f.copysign(f.div(t, f.add(t, f.const(2.0))), x)
    return f.select(f.compare("uno", x, x), x, result)


def erf(f: Floats, x: str) -> str:
    """A polynomial up to 1; beyond, 1 - exp(-x**2) * g(1/(|x| + 2))."""
    z = f.mul(x, x)
    near = f.mul(x, f.fma(z, f.polynomial(z, _of(f, ERF)), f.const(TWO_BY_SQRT_PI)))
    magnitude = _clamp(f, f.abs(x), 1.0, 4.0 if f.bits == 32 else 6.0)
    u = f.div(f.const(1.0), f.add(magnitude, f.const(2.0)))
    decay = exp(f, f.neg(f.mul(magnitude, magnitude)))
    tail = f.mul(decay, f.polynomial(u, _of(f, ERFC)))
    far = f.copysign(f.sub(f.const(1.0), tail), x)
    result = f.select(f.compare("olt", f.abs(x), f.const(1.0)), near, far)
    return f.select(f.compare("uno", x, x), x, result)


def sin(f: Floats, x: str) -> str:
    """sin(n*pi/2 + r): sin or cos of r by the parity of n, negated by its second bit."""
    return _circular(f, x, 0)


def cos(f: Floats, x: str) -> str:
    """cos(x) = sin of one quadrant further."""
    return _circular(f, x, 1)


def _circular(f: Floats, x: str, quadrant: int) -> str:
    wide = _widened(f)
    d = _widen(f, wide, x)
    usable = wide.compare("olt", wide.abs(d), wide.const(2.0**30))
    n = wide.rint(wide.mul(wide.select(usable, d, wide.const(0.0)), wide.const(TWO_BY_PI)))
    r = wide.select(usable, d, wide.const(0.0))
    for part in HALF_PI:
        r = wide.fma(n, wide.const(-part), r)
    z = wide.mul(r, r)
    s = wide.fma(wide.mul(r, z), wide.polynomial(z, _of(f, SIN)), r)
    tail = wide.fma(z, wide.polynomial(z, _of(f, COS)), wide.const(-0.5))
    c = wide.fma(z, tail, wide.const(1.0))
    turns = wide.integer("add", wide.to_int(n), wide.int_const(quadrant))
    odd = wide.integer("shl", turns, wide.int_const(63))
    value = wide.select(_is_negative(wide, odd), c, s)
    sign = wide.integer("shl", wide.integer("lshr", turns, wide.int_const(1)), wide.int_const(63))
    value = wide.from_bits(wide.integer("xor", wide.to_bits(value), sign))
    return _narrow(f, wide, wide.select(usable, value, wide.const(NAN)))


def _is_negative(f: Floats, bits: str) -> str:
    return f.w.define(f"icmp slt {f.int_type} {bits}, {f.int_const(0)}")


def _widened(f: Floats) -> Floats:
    return f if f.bits == 64 else Floats(f.w, 64, f.lanes)


def _widen(f: Floats, wide: Floats, x: str) -> str:
    return x if f.bits == 64 else f.w.define(f"fpext {f.type} {x} to {wide.type}")


def _narrow(f: Floats, wide: Floats, x: str) -> str:
    return x if f.bits == 64 else f.w.define(f"fptrunc {wide.type} {x} to {f.type}")


def power(f: Floats, x: str, y: str) -> str:
    """x**y = exp(y * log|x|) in float64, the logarithm with extra digits if the result is one;
    negative x take a sign from integer y. Special values are those of C's pow."""
    wide = _widened(f)
    base, exponent = _widen(f, wide, x), _widen(f, wide, y)
    magnitude = wide.abs(base)
    result = (
        _power_exact(wide, magnitude, exponent)
        if f.bits == 64
        else exp(wide, wide.mul(exponent, log(wide, magnitude)))
    )
    zero, one = wide.const(0.0), wide.const(1.0)
    whole = wide.compare("oeq", wide.rint(exponent), exponent)
    halved = wide.mul(exponent, wide.const(0.5))
    even = wide.compare("oeq", wide.rint(halved), halved)
    undefined = wide.select(whole, result, wide.const(NAN))
    finite = wide.compare("one", magnitude, wide.const(INF))
    negative = wide.select(finite, undefined, result)
    result = wide.select(wide.compare("olt", base, zero), negative, result)
    signed = wide.copysign(result, base)
    result = wide.select(whole, wide.select(even, result, signed), result)
    # 1**y and x**0 are 1 even for NaN; (-1)**(+-inf) is 1
    infinite = wide.compare("oeq", wide.abs(exponent), wide.const(INF))
    to_one = wide.select(wide.compare("oeq", magnitude, one), one, result)
    result = wide.select(infinite, to_one, result)
    result = wide.select(wide.compare("oeq", exponent, zero), one, result)
    result = wide.select(wide.compare("oeq", base, one), one, result)
    return _narrow(f, wide, result)


def _two_sum(f: Floats, a: str, b: str) -> tuple[str, str]:
    """a + b for |a| >= |b| as the rounded sum and its error."""
    total = f.add(a, b)
    return total, f.sub(b, f.sub(total, a))


def _two_product(f: Floats, a: str, b: str) -> tuple[str, str]:
    """a * b as the rounded product and its error."""
    p = f.mul(a, b)
    if f.has_fma:
        return p, f.fma(a, b, f.neg(p))
    # Veltkamp and Dekker: halves of 26 bits, whose products are exact
    mask = f.int_const(~((1 << 27) - 1))
    ah = f.from_bits(f.integer("and", f.to_bits(a), mask))
    bh = f.from_bits(f.integer("and", f.to_bits(b), mask))
    al, bl = f.sub(a, ah), f.sub(b, bh)
    error = f.sub(f.mul(ah, bh), p)
    for u, v in ((ah, bl), (al, bh), (al, bl)):
        error = f.add(error, f.mul(u, v))
    return p, error


def _power_exact(f: Floats, x: str, y: str) -> str:
    """exp(y * log(x)) for x >= 0 with the logarithm and the product in two parts."""
    e, t = _split(f, x)
    denominator, denominator_low = _two_sum(f, f.const(2.0), t)
    s = f.div(t, denominator)
    p, p_low = _two_product(f, s, denominator)
    # the error of the division, divided again
    missing = f.sub(f.sub(f.sub(t, p), p_low), f.mul(s, denominator_low))
    s_low = f.div(missing, denominator)
    z = f.mul(s, s)
    tail = f.mul(f.mul(s, z), f.polynomial(z, _of(f, LOG)))
    two_s = f.add(s, s)
    high, low = _two_sum(f, f.mul(e, f.const(LN2[1][0])), two_s)
    swapped_high, swapped_low = _two_sum(f, two_s, f.mul(e, f.const(LN2[1][0])))
    has_exponent = f.compare("one", e, f.const(0.0))
    high = f.select(has_exponent, high, swapped_high)
    low = f.select(has_exponent, low, swapped_low)
    low = f.add(low, f.add(f.fma(e, f.const(LN2[1][1]), f.add(s_low, s_low)), tail))
    high, low = _two_sum(f, high, low)
    special = f.compare("ueq", f.abs(_log_special(f, x, high)), f.const(INF))
    high = _log_special(f, x, high)
    product, product_low = _two_product(f, high, y)
    product_low = f.fma(low, y, product_low)
    # where a part is infinite its error is not a number and means nothing
    product_low = f.select(special, f.const(0.0), product_low)
    product_low = _clamp(f, product_low, -1.0, 1.0)
    result = exp(f, product)
    corrected = f.fma(result, product_low, result)
    overflow = f.compare("one", f.abs(result), f.const(INF))
    return f.select(overflow, corrected, result)
