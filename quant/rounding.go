package quant

// Rounding turns real levels into codes: to nearest, or stochastically with
// counters that name the element, so that an element has one code whatever the
// chunking, the order or the machine. The zero value rounds to nearest.
type Rounding struct {
	stochastic bool
	key        uint64
}

// The tensors that are rounded, as streams of random counters. K and V codes
// are streams HalfK and HalfV.
const (
	StreamQ = 2 // element: channel
	StreamP = 3 // element: key position
)

// Rounding is the format's rounding for one stream of one layer and head (KV
// head for K and V, query head for Q and P).
func (f Format) Rounding(layer, head, stream int) Rounding {
	key := mix(f.Seed ^ 0x9e3779b97f4a7c15)
	key = mix(key ^ uint64(layer)<<32 ^ uint64(head)<<8 ^ uint64(stream))
	return Rounding{f.Stochastic, key}
}

// At is the rounding of one position's elements.
func (r Rounding) At(position int) Rounding {
	if r.stochastic {
		r.key = mix(r.key ^ uint64(position))
	}
	return r
}

// Key is what the numbers of elements are drawn with, if r is stochastic: element
// i's is mix(key ^ i).
func (r Rounding) Key() uint64 { return r.key }

// Level rounds y, clamped to [0, last], as element i of its position.
func (r Rounding) Level(y, last float32, i int) uint8 {
	y = min(max(y, 0), last)
	if !r.stochastic {
		return uint8(int32(y + 0.5))
	}
	floor := int32(y)
	if r.uniform(i) < y-float32(floor) {
		floor++
	}
	return uint8(floor)
}

// uniform is a number in [0, 1) with 24 random bits.
func (r Rounding) uniform(i int) float32 {
	return float32(mix(r.key^uint64(i))>>40) * (1.0 / (1 << 24))
}

// mix is a bijection of 64-bit words in which every input bit reaches every
// output bit (the finaliser of SplitMix64).
func mix(z uint64) uint64 {
	z += 0x9e3779b97f4a7c15
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return z ^ z>>31
}
