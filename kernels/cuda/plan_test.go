package cuda

import (
	"fmt"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/terse-llm/terse/quant"
)

// Every plan reads what the format says, once, and its slots and blocks add up.
func TestPlan(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		name := rapid.SampledFrom([]string{"hq2", "hq3,sinks=0,recent=0", "hq2,recent=256", "f16"}).Draw(t, "format")
		f, err := quant.ParseFormat(name, true)
		if err != nil {
			t.Fatal(err)
		}
		lengths := rapid.SliceOfN(rapid.IntRange(1, 5000), 1, 12).Draw(t, "lengths")
		heads, group := rapid.IntRange(1, 4).Draw(t, "heads"), rapid.IntRange(1, 12).Draw(t, "group")
		o := PlanOptions{Blocks: rapid.IntRange(1, 150).Draw(t, "blocks"), Warps: rapid.IntRange(2, 16).Draw(t, "warps"), Run: rapid.SampledFrom([]int{0, 0, 7}).Draw(t, "run")}
		p := NewPlan(f, lengths, heads, group, 4, o)
		checkPlan(t, f, lengths, heads, group, o, p)
	})
}

// Batches of any size on a device of 132 multiprocessors.
func TestPlanBatches(t *testing.T) {
	for _, name := range []string{"hq2", "f16"} {
		f, err := quant.ParseFormat(name, true)
		if err != nil {
			t.Fatal(err)
		}
		o := PlanOptions{Blocks: 132, Warps: 12}
		for n := 17; n <= 256; n++ {
			checkShares(t, o, NewPlan(f, slices.Repeat([]int{32 << 10}, n), 8, 4, 4, o))
		}
	}
}

// Work that is more than a piece a block is spread evenly: what waits for a block to
// end, because there are more blocks than run at once, takes twice as long.
func checkShares(t rapid.TB, o PlanOptions, p *Plan) {
	if p.blocks > o.Blocks {
		t.Fatalf("%d blocks where %d run at once", p.blocks, o.Blocks)
	}
	total, most := 0, 0
	for b := range p.blocks {
		cost := 0
		for i := int32(b); i >= 0; i = p.items[i].Next {
			it := p.items[i]
			cost += int(it.Hi-it.Lo) + unitCost*(int(it.ExactHi-it.ExactLo+exactUnit-1)/exactUnit)
		}
		total, most = total+cost, max(most, cost)
	}
	if share := (total + o.Blocks - 1) / o.Blocks; most > share+2*min(share/16+1, mergeCost)+6 {
		t.Fatalf("a block has %d pages' work where %d would do", most, share)
	}
}

func checkPlan(t *rapid.T, f quant.Format, lengths []int, heads, group int, o PlanOptions, p *Plan) {
	if o.Run == 0 && len(lengths)*heads*((group+3)/4) > o.Blocks {
		checkShares(t, o, p)
	}
	checkEven(t, p)
	reads := map[string]int{}
	slots, seen := map[int32]bool{}, 0
	for b := range p.blocks {
		for i := int32(b); i >= 0; i = p.items[i].Next {
			it := p.items[i]
			seen++
			if slots[it.Slot] || it.Slot < it.First || it.Slot >= it.First+it.Parts || int(it.Slot) >= p.slots {
				t.Fatalf("item %+v has a slot that is taken or not its own", it)
			}
			slots[it.Slot] = true
			if units, pages := it.ExactHi > it.ExactLo, it.Hi > it.Lo; units != (it.ExactWarps > 0) || pages != (int(it.ExactWarps) < o.Warps) && pages {
				t.Fatalf("item %+v gives %d of %d warps to its exact tokens", it, it.ExactWarps, o.Warps)
			}
			if it.ExactLo%exactUnit != 0 {
				t.Fatalf("item %+v begins within a unit", it)
			}
			who := fmt.Sprint(it.Sequence, " ", it.Head, " ", it.FirstQuery, " ")
			for tok := it.Lo * 64; tok < it.Hi*64; tok++ {
				reads[fmt.Sprint(who, tok, " coded")]++
			}
			for e := it.ExactLo; e < it.ExactHi; e++ {
				tok := e
				if e >= it.Sinks {
					tok += it.Skip
				}
				reads[fmt.Sprint(who, tok, " exact")]++
			}
		}
	}
	if seen != len(p.items) || len(slots) != p.slots {
		t.Fatalf("%d of %d items are in blocks, with %d of %d slots", seen, len(p.items), len(slots), p.slots)
	}
	total := 0
	for seq, n := range lengths {
		from := 0
		if f.Coded() {
			from, _ = f.ExactFrom(n)
		}
		total += n
		for _, tok := range []int{0, n / 2, n - 1, min(n-1, f.Sinks), max(0, min(n-1, from-1))} {
			form := " exact"
			if tok >= f.Sinks && tok < from {
				form = " coded"
			}
			for head := range heads {
				for q := 0; q < group; q += 4 {
					if got := reads[fmt.Sprint(seq, " ", head, " ", q, " ", tok, form)]; got != 1 {
						t.Fatalf("token %d of sequence %d (%d) is read %d times%s", tok, seq, n, got, form)
					}
				}
			}
		}
	}
	sum := 0
	for _, n := range reads {
		sum += n
	}
	if want := total * heads * ((group + 3) / 4); sum != want {
		t.Fatalf("%d tokens are read, want %d", sum, want)
	}
}

// checkEven makes the items of a plan's short form as the kernel does
// (src/page.cuh, firstItem): they are the list's.
func checkEven(t *rapid.T, p *Plan) {
	e := p.even
	parts, last := int32(e.Parts), int32(e.Parts)-int32(e.MoreUnits)
	if parts == 0 {
		return
	}
	if p.blocks%(int(parts)*e.heads) != 0 || len(p.items) != p.blocks {
		t.Fatalf("%d blocks of %d heads in %d parts", p.blocks, e.heads, parts)
	}
	for b := range int32(p.blocks) {
		part, head := b%parts, b/parts
		unit, more, moreUnits := part*e.units+max(part-last, 0), int32(0), int32(0)
		if part < int32(e.MorePages) {
			more = 1
		}
		if part >= last {
			moreUnits = 1
		}
		it := item{Sequence: head / int32(e.heads), Head: head % int32(e.heads), Sinks: e.sinks, Skip: e.skip, Slot: b, First: b - part, Parts: parts, Next: -1}
		it.Lo = e.Lo + part*e.Pages + min(part, int32(e.MorePages))
		it.Hi = it.Lo + e.Pages + more
		it.ExactLo, it.ExactHi = exactUnit*unit, min(e.exactHi, exactUnit*(unit+e.units+moreUnits))
		it.ExactWarps = int32(e.ExactWarps[more+2*moreUnits])
		if it != p.items[b] {
			t.Fatalf("block %d is told %+v, the list has %+v", b, it, p.items[b])
		}
	}
}

// With Run, what a sequence's blocks do does not depend on its company.
func TestPlanAlone(t *testing.T) {
	f, err := quant.ParseFormat("hq2", true)
	if err != nil {
		t.Fatal(err)
	}
	o := PlanOptions{Blocks: 132, Warps: 16, Run: 64}
	cuts := func(lengths []int) (c [][4]int32) {
		p := NewPlan(f, lengths, 1, 4, 4, o)
		for _, it := range p.items {
			if int(it.Sequence) == len(lengths)-1 {
				c = append(c, [4]int32{it.Lo, it.Hi, it.ExactLo, it.ExactHi})
			}
		}
		slices.SortFunc(c, func(a, b [4]int32) int { return slices.Compare(a[:], b[:]) })
		return c
	}
	if alone, company := cuts([]int{30000}), cuts([]int{100, 9000, 30000}); !slices.Equal(alone, company) {
		t.Errorf("alone %v, in company %v", alone, company)
	}
}
