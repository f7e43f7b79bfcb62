package neon

// BitPair makes d bit pair i of every byte of n: mask has 3 in every byte.
func (f *Func) BitPair(i int, d, n, mask V) {
	switch i {
	case 0:
		f.AND(d, n, mask)
	case 3:
		f.USHR(B16, d, n, 6)
	default:
		f.USHR(B16, d, n, uint32(2*i))
		f.AND(d, d, mask)
	}
}

// SumQuads makes d the sums of four neighbours each of the 16-bit lanes of lo and
// hi, which are signed and change.
func (f *Func) SumQuads(d, lo, hi V) {
	f.SADDLP(H8, lo, lo)
	f.SADDLP(H8, hi, hi)
	f.ADDP(S4, d, lo, hi)
}

// Repeat ends a loop that counts r down by n to 0.
func (f *Func) Repeat(label string, n int, r R) {
	f.Go("SUBS $%d, %v", n, r)
	f.Go("BNE %s", label)
}
