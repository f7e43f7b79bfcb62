package dequant

import "github.com/terse-llm/terse/quant"

// Operand is the numbers that o's codes stand for, [row][inner].
func Operand(o *quant.Operand) []float64 {
	x := make([]float64, len(o.Codes))
	for i, code := range o.Codes {
		p := i/o.Inner*o.Parts() + i%o.Inner/o.Partition
		x[i] = o.Scale[p]*float64(code) + o.Min[p]
	}
	return x
}
