package quant

import "fmt"

// Operand is one side of a homomorphic product: rows vectors of the contraction
// dimension inner, cut into partitions of Partition elements (the last may be
// shorter), each coded as x ≈ Scale·code + Min. It is the formula in plain
// float64, for tests and documentation; the kernels compute the same on pages.
type Operand struct {
	Rows, Inner, Partition int
	Codes                  []int     // [row][inner]
	Scale, Min             []float64 // [row][partition]
	// Sums of the codes, [row][partition]: what summation elimination stores. Nil
	// where they are summed at each product.
	Sums []int
}

// OperandRules says how QuantiseOperand codes.
type OperandRules struct {
	Partition int
	Bits      int
	// Symmetric centres the levels on 0: Min = -Scale·(2^Bits-1)/2.
	Symmetric bool
	Sums      bool // store the sums
	Rounding  Rounding
}

// QuantiseOperand codes x, [rows][inner].
func QuantiseOperand(x []float64, inner int, r OperandRules) (*Operand, error) {
	if inner < 1 || len(x)%inner != 0 || r.Partition < 1 || r.Bits < 1 || r.Bits > 8 {
		return nil, fmt.Errorf("cannot quantise %d numbers in rows of %d, partitions of %d, %d bits", len(x), inner, r.Partition, r.Bits)
	}
	o := &Operand{Rows: len(x) / inner, Inner: inner, Partition: r.Partition, Codes: make([]int, len(x))}
	last := float64(int(1)<<r.Bits - 1)
	for row := range o.Rows {
		for lo := 0; lo < inner; lo += r.Partition {
			hi := min(lo+r.Partition, inner)
			scale, zero := affineOf(x[row*inner+lo:row*inner+hi], last, r.Symmetric)
			o.Scale, o.Min = append(o.Scale, scale), append(o.Min, zero)
			sum := 0
			for i := row*inner + lo; i < row*inner+hi; i++ {
				o.Codes[i] = int(r.Rounding.At(row).Level(float32((x[i]-zero)/scale), float32(last), i-row*inner))
				sum += o.Codes[i]
			}
			if r.Sums {
				o.Sums = append(o.Sums, sum)
			}
		}
	}
	return o, nil
}

// affineOf is the scale and the min of one partition.
func affineOf(x []float64, last float64, symmetric bool) (scale, zero float64) {
	lo, hi := x[0], x[0]
	for _, v := range x {
		lo, hi = min(lo, v), max(hi, v)
	}
	if symmetric {
		hi = max(hi, -lo)
		lo = -hi
	}
	scale = (hi - lo) / last
	if scale == 0 {
		scale = 1
	}
	if symmetric {
		return scale, -scale * last / 2
	}
	return scale, lo
}

// Parts is the number of partitions of a row.
func (o *Operand) Parts() int { return (o.Inner + o.Partition - 1) / o.Partition }

func (o *Operand) sum(row, p int) int {
	if o.Sums != nil {
		return o.Sums[row*o.Parts()+p]
	}
	total := 0
	for i := p * o.Partition; i < min((p+1)*o.Partition, o.Inner); i++ {
		total += o.Codes[row*o.Inner+i]
	}
	return total
}

// Product is A·Bᵀ, [a.Rows][b.Rows], from the codes (arXiv 2502.03589, eq. 4):
//
//	Σ_p sA·sB·Σa'b' + mB·sA·Σa' + mA·sB·Σb' + n·mA·mB
//
// where n is the partition's length. It equals the product of the dequantised
// operands; only their quantisation loses anything.
func Product(a, b *Operand) ([]float64, error) {
	if a.Inner != b.Inner || a.Partition != b.Partition {
		return nil, fmt.Errorf("cannot multiply rows of %d in partitions of %d with rows of %d in partitions of %d", a.Inner, a.Partition, b.Inner, b.Partition)
	}
	out := make([]float64, 0, a.Rows*b.Rows)
	for i := range a.Rows {
		for j := range b.Rows {
			var c float64
			for p := range a.Parts() {
				c += partProduct(a, b, i, j, p)
			}
			out = append(out, c)
		}
	}
	return out, nil
}

func partProduct(a, b *Operand, i, j, p int) float64 {
	lo, hi := p*a.Partition, min((p+1)*a.Partition, a.Inner)
	dot := 0
	for z := lo; z < hi; z++ {
		dot += a.Codes[i*a.Inner+z] * b.Codes[j*b.Inner+z]
	}
	sA, mA := a.Scale[i*a.Parts()+p], a.Min[i*a.Parts()+p]
	sB, mB := b.Scale[j*b.Parts()+p], b.Min[j*b.Parts()+p]
	return sA*sB*float64(dot) + mB*sA*float64(a.sum(i, p)) + mA*sB*float64(b.sum(j, p)) + float64(hi-lo)*mA*mB
}
