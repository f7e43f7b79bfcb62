package quant

import (
	"fmt"
	"strings"
)

// Family is the kind of a KV format.
type Family uint8

// The families.
const (
	FamilyF16      Family = iota // exact pages only: f16, and f32 to check others against
	FamilyHQ                     // ours: 2-bit planes, one group per token and head
	FamilyHack                   // HACK as in arXiv 2502.03589v1
	FamilyHackV2                 // HACK as in the 2026 artifact
	FamilyGroup                  // int8, int4: a scale per token and 64 channels; a baseline
	FamilyKIVI                   // KIVI as in arXiv 2402.02750; a baseline
	FamilyCacheGen               // CacheGen as in arXiv 2310.07240; a baseline
	FamilyKVQuant                // KVQuant as in arXiv 2401.18079; a baseline
)

// Second says which of a page's values have the second 2-bit plane (hq only).
type Second uint8

// The ways the second plane can be there.
const (
	SecondNone      Second = iota // 2-bit codes
	SecondAll                     // nested 4-bit codes
	SecondLeading                 // the leading channels are 4-bit, with a scale of their own
	SecondTokens                  // the tokens of a per-page set are 4-bit
	SecondImportant               // 2-bit codes, which a second plane refines for important tokens
	SecondShared                  // as SecondLeading, with a quarter of the other channels' scale (K)
)

// Half is how one half of a page, K or V, is coded by an hq format.
type Half struct {
	Second  Second
	Leading int // channels of the 4-bit segment, a multiple of 16, or Quarter, or Planned (SecondLeading, SecondShared)
	Tokens  int // the most tokens of one page and head that may be in the set (SecondTokens, SecondImportant)
}

// Half.Leading where it is no number.
const (
	Quarter = -1 // the multiple of 16 nearest to a quarter of head_dim (SecondLeading)
	Planned = -2 // each layer's own, which the calibration has (SecondShared)
)

// leading is the number of channels of the 4-bit segment of heads of d channels.
func (h Half) leading(d int) int {
	if h.Leading == Quarter {
		return max(16, (d/4+8)/16*16)
	}
	return h.Leading
}

// Format is a KV number format with all its parameters. The zero value is f16.
// Name is canonical: ParseFormat(f.Name) gives f again, and workers compare it
// in the handshake.
type Format struct {
	Name   string
	Family Family

	PageTokens int  // tokens of a page: 64, or the partition if that is larger
	Wide       bool // exact pages hold float32 (f32 only)
	Sinks      int  // leading tokens read exactly (both halves)
	Recent     int  // hq: at least this many last tokens are read exactly; kivi: its residual length

	// hq
	K, V      Half
	Budget    int  // thousandths of a bit per element that leading channels as planned may make of K and V; 0 = the calibration's own plan
	Important int  // per cent of a prompt's coded tokens that keep the second plane (SecondImportant halves); 0 = none
	Symmetric bool // scale only, levels (c - (2^b-1)/2)·s; else a zero as well
	Rotate    bool
	Balanced  bool // K in its calibrated basis, leading channels first; Rotate turns within segments
	Mean      bool // subtract the calibrated means where there are any
	Clip      bool // choose the scale by squared error; else min/max
	Norm      bool // then change that of 2-bit codes so that vectors keep their norms

	// hack and the baselines
	Bits         int // of K and V: 2, 4 or 8 (kvquant: 2, 3 or 4)
	Partition    int // Π: 32, 64 or 128 (kivi: its group size)
	SE           bool
	RQE          bool
	Stochastic   bool
	Seed         uint64 // of the stochastic rounding's counters
	Delta        int    // cachegen: tokens from one anchor to the next; 0 = none
	ExactPrefill bool   // prompt queries attend exactly (the artifact's default)
}

// Coded reports whether the format has coded pages at all.
func (f Format) Coded() bool { return f.Family != FamilyF16 }

// Dequantised reports whether attention computes with the float32 values that
// codes stand for: so do the baselines that ours is measured against, and no
// other format.
func (f Format) Dequantised() bool {
	return f.Family == FamilyGroup || f.Family == FamilyKIVI || f.Family == FamilyCacheGen ||
		f.Family == FamilyKVQuant
}

// ExactFrom gives, for a query with n tokens up to and with itself, the first
// token of the exact tail of K and of V; n means none is exact. Sinks come on
// top. See docs/formats.md, "Which form a query reads".
func (f Format) ExactFrom(n int) (k, v int) {
	switch f.Family {
	case FamilyHQ:
		from := max(0, (n-f.Recent)/f.PageTokens*f.PageTokens)
		return from, from
	case FamilyHack, FamilyHackV2:
		if !f.RQE { // the open block is coded anew at every append and read so
			return n, n
		}
	case FamilyKIVI: // what leaves the residual leaves it after the query
		return f.heldFrom(max(0, n-1))
	}
	return f.heldFrom(n)
}

// heldFrom gives the first token, beyond the sinks, whose exact K and V are
// still needed once n tokens are written: to be read exactly, or because the
// partition they stand in is not closed and will be coded (again) later.
func (f Format) heldFrom(n int) (k, v int) {
	switch f.Family {
	case FamilyHQ:
		return f.ExactFrom(n)
	case FamilyHack: // K is coded token by token; V's open block waits
		return n, n / f.Partition * f.Partition
	case FamilyHackV2: // the open block of both waits
		from := n / f.Partition * f.Partition
		return from, from
	case FamilyGroup, FamilyCacheGen, FamilyKVQuant:
		return n, n
	case FamilyKIVI: // K leaves by whole residuals, V token by token
		return n / f.Recent * f.Recent, max(0, n-f.Recent)
	}
	return 0, 0
}

// SinkPages is the number of leading pages whose exact form is kept for ever.
func (f Format) SinkPages() int { return (f.Sinks + f.PageTokens - 1) / f.PageTokens }

// CodedPages is the range [lo, hi) of logical pages that have a coded form once
// n tokens of a sequence are written. hq codes a page when it is full, whether
// or not it is still read exactly; hack codes K at once and V (v2: both) by
// whole partitions; int8, int4, cachegen and kvquant code every token at once, kivi
// whole groups.
func (f Format) CodedPages(n int) (lo, hi int) {
	switch f.Family {
	case FamilyHQ:
		return min(f.SinkPages(), n/f.PageTokens), n / f.PageTokens
	case FamilyHack, FamilyGroup, FamilyCacheGen, FamilyKVQuant:
		return 0, f.pages(n)
	case FamilyKIVI:
		return 0, f.pages(n / f.Partition * f.Partition)
	case FamilyHackV2:
		from, _ := f.ExactFrom(n)
		return 0, f.pages(from)
	}
	return 0, 0
}

// ExactPages is the range [lo, hi) of logical pages, beyond the SinkPages, whose
// exact form a sequence of n written tokens still needs: to be read by the next
// query or to be coded later. promptLen matters to ExactPrefill formats only.
func (f Format) ExactPages(n, promptLen int) (lo, hi int) {
	hi = f.pages(n)
	if f.Family == FamilyF16 || (f.ExactPrefill || f.Selects()) && n < promptLen {
		return 0, hi
	}
	k, v := f.heldFrom(n)
	return min(min(k, v)/f.PageTokens, hi), hi
}

// Selects reports whether the end of a prompt decides which of its tokens keep the
// second plane: until then their exact form is needed.
func (f Format) Selects() bool { return f.Important > 0 }

// MostImportant is the most tokens of a page and head that may keep the second plane.
func (f Format) MostImportant() int {
	if f.K.Second == SecondImportant {
		return f.K.Tokens
	}
	return f.V.Tokens
}

// Selectable is the range [lo, hi) of tokens of a prompt of n tokens that the
// second plane is given to by importance: those that its next query reads as
// codes. Tokens after them are coded when they leave the exact window, without.
func (f Format) Selectable(n int) (lo, hi int) {
	hi, _ = f.ExactFrom(n)
	return min(f.Sinks, hi), hi
}

func (f Format) pages(n int) int { return (n + f.PageTokens - 1) / f.PageTokens }

// Planes says which planes of a coded page a part is.
type Planes uint8

// The planes of a part.
const (
	AllPlanes   Planes = iota
	TopPlanes          // scales, zeros and top planes
	SecondPlane        // the second planes, and the sets of the tokens that have one
)

// Part is a run of one page's bytes that a hand-over moves: tokens [Lo, Hi) of
// the exact form (of K, of V or of both), or the whole coded form.
type Part struct {
	Page   int
	Coded  bool
	Planes Planes // coded parts of formats with a second plane only
	Lo, Hi int    // tokens of the page; exact parts only
	K, V   bool
}

// Handover lists, page by page, what a decoder must be given of a prompt of n
// tokens to go on exactly as if it had prefilled it itself.
func (f Format) Handover(n int) []Part {
	var parts []Part
	fromK, fromV := f.heldFrom(n)
	for page := range f.pages(n) {
		first := page * f.PageTokens
		last := min(first+f.PageTokens, n)
		if f.Family != FamilyF16 && (max(first, f.Sinks) < min(last, fromK) || max(first, f.Sinks) < min(last, fromV)) {
			parts = append(parts, f.codedParts(Part{Page: page, Coded: true, Hi: last - first, K: true, V: true})...)
		}
		if lo, hi := first, min(last, f.Sinks); lo < hi {
			parts = append(parts, Part{Page: page, Hi: hi - first, K: true, V: true})
		}
		parts = append(parts, f.tailParts(page, max(first, f.Sinks), last, fromK, fromV)...)
	}
	return parts
}

// codedParts is a coded page as one part, or as two where its second planes are
// known only at the end of the prompt.
func (f Format) codedParts(p Part) []Part {
	if !f.Selects() {
		return []Part{p}
	}
	return PlanesApart([]Part{p})
}

// PlanesApart cuts coded pages into their top planes and, next, their second ones.
func PlanesApart(parts []Part) []Part {
	var out []Part
	for _, p := range parts {
		if p.Coded && p.Planes == AllPlanes {
			top := p
			top.Planes, p.Planes = TopPlanes, SecondPlane
			out = append(out, top)
		}
		out = append(out, p)
	}
	return out
}

// tailParts is the exact tail of one page: tokens [lo, hi) from fromK in K and
// from fromV in V on.
func (f Format) tailParts(page, lo, hi, fromK, fromV int) []Part {
	first := page * f.PageTokens
	k, v := max(lo, fromK), max(lo, fromV)
	switch {
	case k >= hi && v >= hi:
		return nil
	case k == v:
		return []Part{{Page: page, Lo: k - first, Hi: hi - first, K: true, V: true}}
	}
	var parts []Part
	if k < hi {
		parts = append(parts, Part{Page: page, Lo: k - first, Hi: hi - first, K: true})
	}
	if v < hi {
		parts = append(parts, Part{Page: page, Lo: v - first, Hi: hi - first, V: true})
	}
	return parts
}

// FormatNames lists the base names that ParseFormat takes, for help texts and
// error messages.
func FormatNames() []string {
	return []string{"f16", "hq2", "hq2+", "hq2b", "hq3", "hq4", "hack", "hack:v2", "int8", "int4", "kivi", "cachegen", "kvquant", "f32"}
}

func base(name string) (Format, error) {
	hq := Format{Family: FamilyHQ, PageTokens: 64, Sinks: 64, Recent: 128, Rotate: true, Mean: true, Clip: true, Norm: true}
	hack := Format{Family: FamilyHack, PageTokens: 64, Bits: 2, Partition: 64, SE: true, RQE: true, Stochastic: true}
	switch name {
	case "f16", "f32":
		return Format{Family: FamilyF16, PageTokens: 64, Wide: name == "f32"}, nil
	case "hq2":
		return hq, nil
	case "hq2+":
		hq.Balanced, hq.K = true, Half{Second: SecondLeading, Leading: Quarter}
		return hq, nil
	case "hq2b":
		hq.Balanced, hq.K = true, Half{Second: SecondShared, Leading: Planned}
		return hq, nil
	case "hq3":
		hq.K.Second = SecondAll
		return hq, nil
	case "hq4":
		hq.K.Second, hq.V.Second = SecondAll, SecondAll
		return hq, nil
	case "hack":
		return hack, nil
	case "hack:v2":
		hack.Family, hack.Sinks, hack.Stochastic, hack.ExactPrefill = FamilyHackV2, 4, false, true
		return hack, nil
	case "int8":
		return Format{Family: FamilyGroup, PageTokens: groupTokens, Bits: 8}, nil
	case "int4":
		return Format{Family: FamilyGroup, PageTokens: groupTokens, Bits: 4}, nil
	case "kivi":
		return Format{Family: FamilyKIVI, PageTokens: 64, Bits: 2, Partition: 32, Recent: 128, RQE: true, ExactPrefill: true}, nil
	case "cachegen":
		return Format{Family: FamilyCacheGen, PageTokens: groupTokens, ExactPrefill: true}, nil
	case "kvquant":
		return Format{Family: FamilyKVQuant, PageTokens: 64, Bits: 2, Sinks: 1, ExactPrefill: true}, nil
	}
	return Format{}, fmt.Errorf("cannot use KV format %q: %schoose one of %s", name, suggest(name, FormatNames()), strings.Join(FormatNames(), ", "))
}
