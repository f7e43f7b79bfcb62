package entropy

import (
	"fmt"
	"math"
)

const (
	// Total is the sum of a distribution's frequencies.
	Total = 1 << totalBits

	totalBits  = 14
	maxSymbols = 256
	// Buckets cut the slots [0, Total) so that few of them hold more than one symbol.
	bucketBits = 7
)

// Table is a distribution of the symbols 0 … n-1, made ready.
type Table struct {
	start []uint16 // of each symbol's slots; and Total
	first [Total >> bucketBits]uint8
}

// NewTable makes a table of frequencies, at least 1 each, that sum to Total.
func NewTable(frequencies []uint16) (*Table, error) {
	if len(frequencies) < 2 || len(frequencies) > maxSymbols {
		return nil, fmt.Errorf("a distribution of %d symbols, not of 2 to %d", len(frequencies), maxSymbols)
	}
	t := &Table{start: make([]uint16, len(frequencies)+1)}
	sum := 0
	for s, f := range frequencies {
		if f == 0 {
			return nil, fmt.Errorf("symbol %d of a distribution has frequency 0", s)
		}
		if sum += int(f); sum > Total {
			return nil, fmt.Errorf("the frequencies of a distribution sum to more than %d", Total)
		}
		t.start[s+1] = uint16(sum)
	}
	if sum != Total {
		return nil, fmt.Errorf("the frequencies of a distribution sum to %d, want %d", sum, Total)
	}
	s := 0
	for i := range t.first {
		for int(t.start[s+1]) <= i<<bucketBits {
			s++
		}
		t.first[i] = uint8(s)
	}
	return t, nil
}

// Frequencies scales counts of symbols to frequencies that a table takes: in
// proportion, at least 1, what rounding leaves to the most frequent symbol. Without
// any counts all symbols are alike.
func Frequencies(counts []uint64) []uint16 {
	f := make([]uint16, len(counts))
	var sum uint64
	most := 0
	for s, n := range counts {
		sum += n
		if n > counts[most] {
			most = s
		}
	}
	room, left := uint64(Total-len(counts)), Total
	for s, n := range counts {
		f[s] = 1
		if sum > 0 {
			f[s] += uint16(float64(n) / float64(sum) * float64(room))
		} else {
			f[s] += uint16(room / uint64(len(counts)))
		}
		left -= int(f[s])
	}
	f[most] += uint16(left)
	return f
}

// Bits is what a symbol takes, on average, that comes as frequencies say.
func Bits(frequencies []uint16) float64 {
	bits := 0.0
	for _, f := range frequencies {
		p := float64(f) / Total
		bits -= p * math.Log2(p)
	}
	return bits
}

// symbol is the one that a slot belongs to.
func (t *Table) symbol(slot uint32) int {
	s := int(t.first[slot>>bucketBits&(1<<(totalBits-bucketBits)-1)])
	for uint32(t.start[s+1]) <= slot {
		s++
	}
	return s
}
