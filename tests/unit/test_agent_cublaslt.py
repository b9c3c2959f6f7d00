"""The tray's own libcublasLt as a load: a stand-in library of C, called as the real one would be, over the twin's CUDA driver.

The stand-in checks what it is handed, and asks the test to write the product.
"""

from __future__ import annotations

import ctypes as c
import gc
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest

from burnin.agent import cublaslt
from burnin.agent.burn import FAMILIES
from burnin.agent.cublaslt import Gemm, LibraryError, filling, open_library
from burnin.agent.cuda import Cuda
from burnin.agent.work import Again
from tests.unit.gpu_jobs import open_gpu
from tests.unit.test_agent_work import capable, pick
from tests.unit.twin_tray import Bench, bench

N = 256
HOOK = c.CFUNCTYPE(c.c_int, c.c_uint64, c.c_uint64, c.c_void_p)
SOURCE = r"""
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
typedef struct { int kind, a, b, trans; uint64_t rows, cols, room; int64_t ld; uint32_t mask; } thing;
typedef struct { uint64_t data[8]; } algo;
typedef struct { algo algo; size_t workspace; int state; float waves; int reserved[4]; } answer;
typedef int (*hook)(uint64_t d, uint64_t bytes, void *stream);
static hook tell; static int answers = 1;
void stand_in(hook h, int n) { tell = h; answers = n; }
static int made(void **out, int kind, int a, int b) {
    thing *t = calloc(1, sizeof *t); t->kind = kind; t->a = a; t->b = b; t->mask = 7; *out = t; return 0;
}
static int is(void *t, int kind) { return t && ((thing *)t)->kind == kind; }
size_t cublasLtGetVersion(void) { return 130100; }
int cublasLtCreate(void **out) { return made(out, 1, 0, 0); }
int cublasLtMatmulDescCreate(void **out, int compute, int scale) { return made(out, 2, compute, scale); }
int cublasLtMatmulDescSetAttribute(void *t, int which, const void *v, size_t size) {
    if (!is(t, 2) || which != 3 || size != 4) return 7;
    memcpy(&((thing *)t)->trans, v, 4); return 0;
}
int cublasLtMatrixLayoutCreate(void **out, int type, uint64_t rows, uint64_t cols, int64_t ld) {
    made(out, 3, type, 0); thing *t = *out; t->rows = rows; t->cols = cols; t->ld = ld; return 0;
}
int cublasLtMatmulPreferenceCreate(void **out) { return made(out, 4, 0, 0); }
int cublasLtMatmulPreferenceSetAttribute(void *t, int which, const void *v, size_t size) {
    if (!is(t, 4)) return 7;
    if (which == 1 && size == 8) { memcpy(&((thing *)t)->room, v, 8); return 0; }
    if (which == 3 && size == 4) { memcpy(&((thing *)t)->mask, v, 4); return 0; }
    return 7;
}
int cublasLtMatmulAlgoGetHeuristic(void *h, void *d, void *la, void *lb, void *lc, void *ld, void *p, int most,
                                   answer *out, int *n) {
    if (!is(h, 1) || !is(d, 2) || !is(la, 3) || !is(lb, 3) || !is(lc, 3) || !is(ld, 3) || !is(p, 4) || most != 1) return 7;
    if (((thing *)p)->room != 32 << 20 || ((thing *)p)->mask != 0 || sizeof(answer) != 96) return 7;
    for (int i = 0; i < 8; i++) out->algo.data[i] = 0xA160000000000000ull + i;
    out->workspace = 1 << 20; out->state = 0; *n = answers; return 0;
}
int cublasLtMatmulAlgoConfigGetAttribute(const algo *a, int which, void *v, size_t size, size_t *written) {
    if (a->data[7] != 0xA160000000000007ull || size != 4) return 7;
    *(int *)v = 60 + which; *written = 4; return which == 6 ? 1 : 0;
}
int cublasLtMatmul(void *h, void *d, const float *one, uint64_t a, void *la, uint64_t b, void *lb, const float *zero, uint64_t c,
                   void *lc, uint64_t out, void *ld, const algo *algo, uint64_t room, size_t size, void *stream) {
    thing *m = d, *l = ld;
    if (!is(h, 1) || !is(d, 2) || m->a != 68 || m->b != 0 || m->trans != 1 || *one != 1.0f || *zero != 0.0f) return 7;
    if (!is(la, 3) || !is(lb, 3) || !is(lc, 3) || !is(ld, 3)) return 7;
    if (l->a != 14 || l->rows != l->cols || l->ld != (int64_t)l->rows) return 7;
    if (algo->data[0] != 0xA160000000000000ull || size != 32 << 20 || a == b || a == out || b == out || c != out) return 7;
    if (!(a >> 32) || !(room >> 32)) return 7;  /* an address was cut to 32 bits */
    return tell(out, 2 * l->rows * l->cols, stream);
}
"""


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        pytest.skip("no C compiler to build the stand-in with")
    where = tmp_path_factory.mktemp("cublaslt")
    (where / "lt.c").write_text(SOURCE)
    subprocess.run([compiler, "-shared", "-fPIC", "-o", where / "libcublasLt.so.13", where / "lt.c"], check=True, timeout=60)
    return where / "libcublasLt.so.13"


@pytest.fixture
def tray(tmp_path: Path) -> Bench:
    made = bench(tmp_path)
    made.run(1)
    return made


class Products:
    """The stand-in's products: every word is 7, but where `words` (n-th product -> value) says otherwise; `code` is answered."""

    alive: ClassVar[list[Products]] = []
    """Those of this test: the library has a pointer to what it calls, which keeps nothing from being collected."""

    def __init__(self, library: Any, driver: Cuda, answers: int = 1) -> None:
        self.alive.append(self)
        self.count, self.code, self.words = 0, 0, dict[int, int]()
        self._driver = driver
        self._hook = HOOK(self._one)
        library.stand_in(self._hook, answers)

    def _one(self, at: int, size: int, stream: Any) -> int:
        self.count += 1
        if not self.code:
            self._driver.call("cuMemsetD32Async", at, self.words.get(self.count, 7), size // 4, stream)
        return self.code


@pytest.fixture(autouse=True)
def over() -> Iterator[None]:
    """What was alive lets its GPU go with the test."""
    yield
    Products.alive.clear()
    gc.collect()


def little(cuda: Cuda, device: int, library: Any, name: str, launch_ms: float) -> Gemm:
    return Gemm(cuda, device, library, name, launch_ms, N)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch, built: Path) -> Iterator[Path]:
    """The library stands where it is looked for, and matrices are small."""
    monkeypatch.setattr(cublaslt, "NAMES", ("libcublasLt-of-nobody.so",))
    monkeypatch.setattr(cublaslt, "PLACES", (str(built),))
    monkeypatch.setattr(cublaslt, "MOST", 8)
    monkeypatch.setattr("burnin.agent.burn.Gemm", little)
    yield built


def test_it_is_found_where_a_toolkit_puts_it_and_why_not_is_said(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert open_library()[1] == str(small)
    monkeypatch.setattr(cublaslt, "PLACES", ())
    with pytest.raises(LibraryError, match="no libcublasLt: libcublasLt-of-nobody"):
        open_library()


def test_products_are_queued_as_launches_and_agree(tray: Bench, small: Path) -> None:
    driver, device = open_gpu(tray, "g0")
    library, name = open_library()
    products = Products(library, driver)
    gemm = Gemm(driver, device, library, name, 20.0, N)
    assert gemm.said == f"{name} 130100, algorithm 60 tile 61 stages ?"
    assert products.count == 2, "the one that is kept, and the one that is held against it"
    for _ in range(6):
        gemm.launch()
    assert gemm.wrong() == 0
    assert 2 + 6 <= products.count <= 2 + 6 * cublaslt.MOST
    assert gemm.launches == 6


def test_a_product_that_differs_is_counted_and_never_forgotten(tray: Bench, small: Path) -> None:
    driver, device = open_gpu(tray, "g0")
    library, name = open_library()
    products = Products(library, driver)
    products.words = {2: 8}
    gemm = Gemm(driver, device, library, name, 20.0, N)
    words = N * N * 2 // 4
    gemm.launch()
    assert gemm.wrong() == words, "the second product differed whole; the third is as the first"
    products.words = dict.fromkeys(range(products.count + 1, products.count + 99), 9)
    gemm.launch()
    assert gemm.wrong() == words + words // cublaslt.SLICES, "a sixteenth of the last product is looked at"


def test_a_library_that_has_nothing_for_a_gpu_or_lacks_a_symbol_is_refused(tray: Bench, small: Path) -> None:
    driver, device = open_gpu(tray, "g0")
    library, name = open_library()
    Products(library, driver, answers=0)
    with pytest.raises(LibraryError, match="no algorithm for this GPU"):
        Gemm(driver, device, library, name, 20.0, N)
    with pytest.raises(LibraryError, match="libm has no cublasLtCreate"):
        Gemm(driver, device, object(), "libm", 20.0, N)


def test_a_stage_that_asks_for_it_gets_it_and_is_told_the_algorithm(tray: Bench, small: Path) -> None:
    driver = capable(tray, 10, 3)
    Products(open_library()[0], driver)
    load, which = pick(driver, tray, "cublaslt_burn")
    assert which == f"cublaslt_burn of {small} 130100, algorithm 60 tile 61 stages ?"
    load.launch()
    assert load.wrong() == 0
    assert pick(driver, tray, "tensor_burn")[1] == "tensor_burn of burn_sm100f", "nobody gets it who did not ask"
    assert pick(driver, tray, "mma_burn")[1] == "tensor_burn of burn"


def test_it_stands_in_where_the_familys_kernel_is_refused(tray: Bench, small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(FAMILIES, "10.3", "burn_sm90a")
    driver = capable(tray, 10, 3)
    Products(open_library()[0], driver)
    which = pick(driver, tray)[1]
    assert which.startswith(f"cublaslt_burn of {small} 130100")
    assert which.endswith("because burn_sm90a: cuModuleLoadDataEx -> 209 CUDA_ERROR_NO_BINARY_FOR_GPU")


def test_without_it_the_gpu_is_loaded_all_the_same_and_it_is_said(
    tray: Bench, small: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    driver = capable(tray, 10, 3)
    products = Products(open_library()[0], driver)
    products.words = {2: 8}
    assert pick(driver, tray, "cublaslt_burn")[1].startswith(f"tensor_burn of burn_sm100f, because {small} disagreed with itself")
    Products(open_library()[0], driver, answers=0)
    said = pick(driver, tray, "cublaslt_burn")[1]
    assert said == "tensor_burn of burn_sm100f, because the library has no algorithm for this GPU"
    monkeypatch.setattr(cublaslt, "PLACES", ())
    assert "because no libcublasLt: " in pick(driver, tray, "cublaslt_burn")[1]


def test_a_product_that_fails_costs_the_process_and_a_fresh_one_does_without(tray: Bench, small: Path) -> None:
    driver = capable(tray, 10, 3)
    products = Products(open_library()[0], driver)
    products.code = 13
    with pytest.raises(Again) as again:
        pick(driver, tray, "cublaslt_burn")
    assert again.value.changed == {"kernel": "cublaslt_burn", "without": "libcublasLt: cublasLtMatmul -> 13"}
    changed = {"without": again.value.changed["without"]}
    said = pick(capable(tray, 10, 3), tray, "cublaslt_burn", **changed)[1]
    assert said == "tensor_burn of burn_sm100f, because libcublasLt: cublasLtMatmul -> 13"


def test_what_is_multiplied_is_finite_and_the_same_everywhere() -> None:
    one = filling(1)
    assert one == filling(1) != filling(2)
    assert len(one) == 1 << 20
    assert {high & 0x7F for high in one[1::2]} == {0x3E, 0x3F}, "exponents 124 to 127: 0.125 to 2"
