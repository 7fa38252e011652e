import triton
import triton.language as tl


@triton.jit
def inputs(
    x_ptr, w_ptr, bias_ptr, pre_ptr, R, I, N, biased,
    BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr, BIAS: tl.constexpr, PRECISION: tl.constexpr,
    PDL: tl.constexpr,
):  # fmt: skip
    """pre[d] = x w[d]^T + both biases, for all steps at once: x [R, I], w [D, N, I], bias [D, 2 * N], pre [D, R, N].

    The recurrent bias is added to the first `biased` columns only. Grid (tiles, D).
    """
    begin(PDL)
    d = tl.program_id(1)
    tiles_n = tl.cdiv(N, BN)
    m = (tl.program_id(0) // tiles_n) * BM + tl.arange(0, BM)
    n = (tl.program_id(0) % tiles_n) * BN + tl.arange(0, BN)
    k = tl.arange(0, BK)
    x_at = x_ptr + tl.minimum(m, R - 1).to(tl.int64)[:, None] * I + k[None, :]
    w_at = w_ptr + (d * N + tl.minimum(n, N - 1)).to(tl.int64)[:, None] * I + k[None, :]
    wait(PDL)
    acc = tl.zeros((BM, BN), tl.float32)
    for k0 in range(0, I, BK):
        inside = (k < I - k0)[None, :]
        x = tl.load(x_at, mask=inside, other=0.0)
        w = tl.load(w_at, mask=inside, other=0.0)
        acc = tl.dot(x, tl.trans(w), acc, input_precision=PRECISION)
        x_at += BK
        w_at += BK
    if BIAS:
        at = bias_ptr + d * 2 * N + n
        both = tl.load(at, mask=n < N, other=0.0).to(tl.float32)
        both += tl.load(at + N, mask=n < biased, other=0.0).to(tl.float32)
        acc += both[None, :]
    out = pre_ptr + (d.to(tl.int64) * R + m[:, None]) * N + n[None, :]
    tl.store(out, acc, mask=(m < R)[:, None] & (n < N)[None, :])


@triton.jit
def start(from_ptr, to_ptr, b, d, B, H, BB: tl.constexpr, BH: tl.constexpr, GIVEN: tl.constexpr):
    """Copies the initial state of direction d, or zeros, to a [D, B, H] f32 buffer."""
    for j0 in range(0, H, BH):
        j = j0 + tl.arange(0, BH)
        mask = (b < B)[:, None] & (j < H)[None, :]
        at = (d * B + b)[:, None] * H + j[None, :]
        value = tl.zeros((BB, BH), tl.float32)
        if GIVEN:
            value = tl.load(from_ptr + at, mask=mask, other=0.0).to(tl.float32)
        tl.store(to_ptr + at, value, mask=mask)


@triton.jit
def gates(
    h_ptr, r_ptr, b, j, B, H, COUNT: tl.constexpr, BB: tl.constexpr, BH: tl.constexpr, BK: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    """h [B, H] (f32) times the rows j of the first COUNT of four r [H, H], transposed: tiles [BB, BH].

    One loop for all, so that their loads are in flight together.
    """
    k = tl.arange(0, BK)
    h_at = h_ptr + tl.minimum(b, B - 1)[:, None] * H + k[None, :]
    r_at = r_ptr + tl.minimum(j, H - 1)[:, None] * H + k[None, :]
    first = tl.zeros((BB, BH), tl.float32)
    second = tl.zeros((BB, BH), tl.float32)
    third = tl.zeros((BB, BH), tl.float32)
    fourth = tl.zeros((BB, BH), tl.float32)
    for k0 in range(0, H, BK):
        inside = (k < H - k0)[None, :]
        h = tl.load(h_at, mask=inside, other=0.0).to(r_ptr.dtype.element_ty)
        r = tl.load(r_at, mask=inside, other=0.0)
        first = tl.dot(h, tl.trans(r), first, input_precision=PRECISION)
        if COUNT > 1:
            r = tl.load(r_at + H * H, mask=inside, other=0.0)
            second = tl.dot(h, tl.trans(r), second, input_precision=PRECISION)
        if COUNT > 2:
            r = tl.load(r_at + 2 * H * H, mask=inside, other=0.0)
            third = tl.dot(h, tl.trans(r), third, input_precision=PRECISION)
        if COUNT > 3:
            r = tl.load(r_at + 3 * H * H, mask=inside, other=0.0)
            fourth = tl.dot(h, tl.trans(r), fourth, input_precision=PRECISION)
        h_at += BK
        r_at += BK
    return first, second, third, fourth


@triton.jit
def lstm(
    r_ptr, h0_ptr, c0_ptr, pre_ptr, y_ptr, yh_ptr, yc_ptr, T, B, H,
    BB: tl.constexpr, BH: tl.constexpr, BK: tl.constexpr, HAS_H: tl.constexpr, HAS_C: tl.constexpr,
    REVERSE: tl.constexpr, PRECISION: tl.constexpr, PDL: tl.constexpr,
):  # fmt: skip
    """All steps of BB sequences in one direction; gates i, o, f, c. Grid (D, tiles of B).

    pre is [D, T, B, 4 * H]; behind it lie two [D, B, H] buffers of h, read and written in turn, and one of c. REVERSE
    numbers the first direction that runs backwards.
    """
    begin(PDL)
    wait(PDL)
    d = tl.program_id(0)
    b = tl.program_id(1) * BB + tl.arange(0, BB)
    directions = tl.num_programs(0)
    state = directions * B * H
    h_ptr = pre_ptr + directions.to(tl.int64) * T * B * 4 * H
    c_ptr = h_ptr + 2 * state
    start(h0_ptr, h_ptr, b, d, B, H, BB, BH, HAS_H)
    start(c0_ptr, c_ptr, b, d, B, H, BB, BH, HAS_C)
    tl.debug_barrier()
    for step in range(T):
        t = T - 1 - step if d >= REVERSE else step
        old = h_ptr + step % 2 * state + d * B * H
        new = h_ptr + (step + 1) % 2 * state
        pre = pre_ptr + (d.to(tl.int64) * T + t) * B * 4 * H
        for j0 in range(0, H, BH):
            j = j0 + tl.arange(0, BH)
            mask = (b < B)[:, None] & (j < H)[None, :]
            at = pre + b[:, None] * 4 * H + j[None, :]
            r_at = r_ptr + d.to(tl.int64) * 4 * H * H
            i, o, f, g = gates(old, r_at, b, j, B, H, 4, BB, BH, BK, PRECISION)
            i += tl.load(at, mask=mask, other=0.0)
            o += tl.load(at + H, mask=mask, other=0.0)
            f += tl.load(at + 2 * H, mask=mask, other=0.0)
            g += tl.load(at + 3 * H, mask=mask, other=0.0)
            cell = (d * B + b)[:, None] * H + j[None, :]
            c = tl.load(c_ptr + cell, mask=mask, other=0.0)
            c = sigmoid(f) * c + sigmoid(i) * tanh(g)
            h = sigmoid(o) * tanh(c)
            tl.store(c_ptr + cell, c, mask=mask)
            tl.store(new + cell, h, mask=mask)
            y_at = y_ptr + (t.to(tl.int64) * state + cell)
            tl.store(y_at, h.to(y_ptr.dtype.element_ty), mask=mask)
            if step == T - 1:
                tl.store(yh_ptr + cell, h.to(yh_ptr.dtype.element_ty), mask=mask)
                tl.store(yc_ptr + cell, c.to(yc_ptr.dtype.element_ty), mask=mask)
        tl.debug_barrier()


@triton.jit
def gru(
    r_ptr, bias_ptr, h0_ptr, pre_ptr, y_ptr, yh_ptr, T, B, H,
    BB: tl.constexpr, BH: tl.constexpr, BK: tl.constexpr, BIAS: tl.constexpr, HAS_H: tl.constexpr,
    LINEAR: tl.constexpr, REVERSE: tl.constexpr, PRECISION: tl.constexpr, PDL: tl.constexpr,
):  # fmt: skip
    """All steps of BB sequences in one direction; gates z, r, h. Grid (D, tiles of B).

    pre is [D, T, B, 3 * H]; behind it lie two [D, B, H] buffers of h, read and written in turn, and one of r * h.
    LINEAR applies r after the recurrent product (linear_before_reset).
    """
    begin(PDL)
    wait(PDL)
    d = tl.program_id(0)
    b = tl.program_id(1) * BB + tl.arange(0, BB)
    directions = tl.num_programs(0)
    state = directions * B * H
    h_ptr = pre_ptr + directions.to(tl.int64) * T * B * 3 * H
    reset_ptr = h_ptr + 2 * state
    start(h0_ptr, h_ptr, b, d, B, H, BB, BH, HAS_H)
    tl.debug_barrier()
    r_at = r_ptr + d.to(tl.int64) * 3 * H * H
    for step in range(T):
        t = T - 1 - step if d >= REVERSE else step
        old = h_ptr + step % 2 * state
        new = h_ptr + (step + 1) % 2 * state
        mine = old + d * B * H
        pre = pre_ptr + (d.to(tl.int64) * T + t) * B * 3 * H
        if not LINEAR:
            for j0 in range(0, H, BH):
                j = j0 + tl.arange(0, BH)
                mask = (b < B)[:, None] & (j < H)[None, :]
                at = pre + b[:, None] * 3 * H + j[None, :]
                cell = (d * B + b)[:, None] * H + j[None, :]
                r, _, _, _ = gates(mine, r_at + H * H, b, j, B, H, 1, BB, BH, BK, PRECISION)
                r += tl.load(at + H, mask=mask, other=0.0)
                h = tl.load(old + cell, mask=mask, other=0.0)
                tl.store(reset_ptr + cell, sigmoid(r) * h, mask=mask)
            tl.debug_barrier()
        for j0 in range(0, H, BH):
            j = j0 + tl.arange(0, BH)
            mask = (b < B)[:, None] & (j < H)[None, :]
            at = pre + b[:, None] * 3 * H + j[None, :]
            cell = (d * B + b)[:, None] * H + j[None, :]
            if LINEAR:
                z, r, n, _ = gates(mine, r_at, b, j, B, H, 3, BB, BH, BK, PRECISION)
                r += tl.load(at + H, mask=mask, other=0.0)
                if BIAS:
                    n += tl.load(bias_ptr + d * 6 * H + 5 * H + j, mask=j < H, other=0.0).to(tl.float32)[None, :]
                n = sigmoid(r) * n
            else:
                z, _, _, _ = gates(mine, r_at, b, j, B, H, 1, BB, BH, BK, PRECISION)
                n, _, _, _ = gates(reset_ptr + d * B * H, r_at + 2 * H * H, b, j, B, H, 1, BB, BH, BK, PRECISION)
            n = tanh(n + tl.load(at + 2 * H, mask=mask, other=0.0))
            z = sigmoid(z + tl.load(at, mask=mask, other=0.0))
            h = (1.0 - z) * n + z * tl.load(old + cell, mask=mask, other=0.0)
            tl.store(new + cell, h, mask=mask)
            tl.store(y_ptr + (t.to(tl.int64) * state + cell), h.to(y_ptr.dtype.element_ty), mask=mask)
            if step == T - 1:
                tl.store(yh_ptr + cell, h.to(yh_ptr.dtype.element_ty), mask=mask)
        tl.debug_barrier()
