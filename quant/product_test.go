package quant_test

import (
	"math"
	"math/rand/v2"
	"testing"

	"pgregory.net/rapid"

	"github.com/terse-llm/terse/quant"
	"github.com/terse-llm/terse/quant/dequant"
)

// The product on codes is the product of the dequantised operands, to 1e-10,
// for every way of coding either side.
func TestHomomorphicProduct(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		inner := rapid.IntRange(1, 200).Draw(t, "inner")
		partition := rapid.SampledFrom([]int{1, 7, 32, 64, 128}).Draw(t, "partition")
		r := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 0))
		draw := func(name string, rows int) *quant.Operand {
			x := make([]float64, rows*inner)
			offset := rapid.Float64Range(-3, 3).Draw(t, name+" offset")
			for i := range x {
				x[i] = r.NormFloat64() + offset
			}
			f := quant.Format{Stochastic: rapid.Bool().Draw(t, name+" stochastic"), Seed: 3}
			o, err := quant.QuantiseOperand(x, inner, quant.OperandRules{
				Partition: partition,
				Bits:      rapid.SampledFrom([]int{2, 4, 8}).Draw(t, name+" bits"),
				Symmetric: rapid.Bool().Draw(t, name+" symmetric"),
				Sums:      rapid.Bool().Draw(t, name+" sums"),
				Rounding:  f.Rounding(0, 0, 0),
			})
			if err != nil {
				t.Fatal(err)
			}
			return o
		}
		a, b := draw("a", 3), draw("b", 4)
		got, err := quant.Product(a, b)
		if err != nil {
			t.Fatal(err)
		}
		x, y := dequant.Operand(a), dequant.Operand(b)
		for i := range 3 {
			for j := range 4 {
				var want, size float64
				for z := range inner {
					want += x[i*inner+z] * y[j*inner+z]
					size += math.Abs(x[i*inner+z] * y[j*inner+z])
				}
				if math.Abs(got[i*4+j]-want) > 1e-10*max(1, size) {
					t.Fatalf("[%d,%d]: %.15g on codes, %.15g dequantised", i, j, got[i*4+j], want)
				}
			}
		}
	})
}

func TestProductRefusesOtherShapes(t *testing.T) {
	rules := quant.OperandRules{Partition: 4, Bits: 2}
	a, err := quant.QuantiseOperand(make([]float64, 16), 8, rules)
	if err != nil {
		t.Fatal(err)
	}
	b, err := quant.QuantiseOperand(make([]float64, 20), 10, rules)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := quant.Product(a, b); err == nil {
		t.Error("operands of inner dimensions 8 and 10 were multiplied")
	}
	if _, err := quant.QuantiseOperand(make([]float64, 7), 4, rules); err == nil {
		t.Error("7 numbers were cut into rows of 4")
	}
}
