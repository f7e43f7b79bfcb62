package house

import (
	"strconv"
	"strings"
	"testing"
)

// floors says on which floor every package stands (docs/ARCHITECTURE.md). A
// package may import lower floors only, and its own parent directory's package.
// Moving one is a decision: change the document too.
var floors = map[string]int{
	"": 0, "tensor": 0, "internal": 0,
	"quant": 1, "tokenizer": 1, "route": 1, "cluster": 1, "workload": 1,
	"kernels": 2, "kvcache": 2, "weights": 2,
	"attention": 3, "transfer": 3, "sched": 3,
	"model": 4, "sim": 4,
	"engine": 5,
	"worker": 6, "gateway": 6, "dashboard": 6,
	"bench": 7, "eval": 7, "pilot": 7, "calibrate": 7,
	"e2e": 9,
	"cmd": 8,
}

// forbidden are imports that the floors would allow and the house does not.
var forbidden = []struct{ from, to, why string }{
	{"gateway", "engine", "the gateway knows text, the engine knows tokens"},
	{"gateway", "kernels", "the gateway never computes"},
	{"gateway", "weights", "the gateway never loads weights"},
	{"gateway", "model", "the gateway never loads weights"},
	{"kvcache", "kernels", "kvcache is bookkeeping"},
}

func floorOf(dir string) (int, bool) {
	top, _, _ := strings.Cut(dir, "/")
	f, ok := floors[top]
	return f, ok
}

func under(dir, top string) bool { return dir == top || strings.HasPrefix(dir, top+"/") }

// related reports whether one of the two lies inside the other's directory.
func related(a, b string) bool { return a != "" && b != "" && (under(a, b) || under(b, a)) }

func TestFloors(t *testing.T) {
	for _, f := range load(t).files {
		floor, ok := floorOf(f.dir)
		if !ok {
			t.Errorf("%s: package %s has no floor; add it to docs/ARCHITECTURE.md and here", f.path, f.dir)
			continue
		}
		for _, imp := range f.ast.Imports {
			p, _ := strconv.Unquote(imp.Path.Value)
			if p == "C" {
				t.Errorf("%s: cgo", f.path)
			}
			if p != module && !strings.HasPrefix(p, module+"/") {
				continue
			}
			to := strings.TrimPrefix(strings.TrimPrefix(p, module), "/")
			checkImport(t, f, floor, to)
		}
	}
}

func checkImport(t *testing.T, f source, floor int, to string) {
	t.Helper()
	target, ok := floorOf(to)
	if !ok {
		t.Errorf("%s imports %s, which has no floor", f.path, to)
		return
	}
	if to == f.dir && f.test { // an external test package
		return
	}
	if f.test && target == floor { // tests hold siblings against each other
		return
	}
	if target > floor || target == floor && floor > 0 && !related(f.dir, to) {
		t.Errorf("%s (floor %d) imports %s (floor %d): imports go down only", f.path, floor, to, target)
	}
	for _, no := range forbidden {
		if under(f.dir, no.from) && under(to, no.to) && !f.test {
			t.Errorf("%s imports %s: %s", f.path, to, no.why)
		}
	}
}

// The serving path never dequantises a cache row of our formats: the only code
// that can is quant/dequant, and only tests, evaluation and calibration may
// import it. The baselines int8, int4, kivi, cachegen and kvquant are dequantised, as
// their authors do: by quant/baseline, kernels/cpu/fused and kernels/cpu/widen, which refuse all other
// formats, in the processor's backends alone (and in bench, as a control).
func TestNothingServedDequantises(t *testing.T) {
	for _, f := range load(t).files {
		if f.test || under(f.dir, "eval") || under(f.dir, "calibrate") || under(f.dir, "quant/dequant") || f.dir == "kernels/kerneltest" {
			continue
		}
		for _, imp := range f.ast.Imports {
			p, _ := strconv.Unquote(imp.Path.Value)
			switch p {
			case module + "/quant/dequant":
				t.Errorf("%s imports quant/dequant: attention is computed on codes", f.path)
			case module + "/quant/baseline", module + "/kernels/cpu/fused", module + "/kernels/cpu/widen":
				if p == module+"/quant/baseline" && f.dir == "kernels/cpu/widen" {
					continue
				}
				if f.dir != "kernels/ref" && f.dir != "kernels/cpu" && f.dir != "bench" {
					t.Errorf("%s imports %s: only the processor's backends dequantise, and only baselines", f.path, p)
				}
			}
		}
	}
}
