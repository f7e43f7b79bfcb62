// Command exact generates kernels/cpu/exact's assembly for arm64.
package main

import "github.com/terse-llm/terse/kernels/cpu/_asm/neon"

// rows says what is in memory: channels of so many bytes, as part of a name.
type rows struct {
	name  string
	bytes int
}

// load loads four channels, widened, and moves p behind them.
func (r rows) load(f *neon.Func, p neon.R, v neon.V) {
	if r.bytes == 4 {
		f.Go("VLD1.P 16(%v), [V%d.S4]", p, v)
		return
	}
	f.Go("VLD1.P 8(%v), [V%d.H4]", p, v)
	f.FCVTL(neon.S4, v, v, false)
}

// fetch asks for bytes ahead, and moves next behind them, unless rows are the
// float32 copies of others, which are in the cache.
func (r rows) fetch(f *neon.Func, next neon.R, bytes int) {
	if r.bytes == 4 {
		return
	}
	for at := 0; at < bytes; at += 64 {
		f.Go("PRFM %d(%v), PLDL2KEEP", at, next)
	}
	f.Go("ADD $%d, %v", bytes, next)
}

func main() {
	f := neon.Start()
	for _, r := range []rows{{"F16", 2}, {"F32", 4}} {
		for nq := 1; nq <= 4; nq++ {
			// At least eight chains of multiply-adds hide their latency.
			qk(f, r, nq, map[bool]int{true: 8, false: 4}[nq <= 2])
			pv(f, r, nq, map[bool]int{true: 8, false: 4}[nq == 1])
		}
	}
	widen(f)
	f.Write()
}

func widen(file *neon.File) {
	f := file.Func("widenNEON", "(dst, src *byte, n int)", "converts n blocks of 32 float16s to float32.")
	const dst, src, n = neon.R(0), neon.R(1), neon.R(2)
	f.Arg("dst", dst)
	f.Arg("src", src)
	f.Arg("n", n)
	blocks := f.NewLabel("blocks")
	f.Label(blocks)
	for i := range 4 {
		v := neon.V(3 * i)
		f.Load(16, src, 16*i, v)
		f.FCVTL(neon.S4, v+1, v, false)
		f.FCVTL(neon.S4, v+2, v, true)
		f.Store(16, v+1, dst, 32*i)
		f.Store(16, v+2, dst, 32*i+16)
	}
	f.Go("ADD $64, %v", src)
	f.Go("ADD $128, %v", dst)
	f.Repeat(blocks, 1, n)
	f.Go("RET")
}
