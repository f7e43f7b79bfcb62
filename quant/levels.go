package quant

import "github.com/terse-llm/terse/quant/entropy"

// LevelCounts counts how often cachegen's levels come, layer by layer, for a
// calibration.
type LevelCounts struct {
	g      *Geometry
	counts [][2]levelCount
	work   []countScratch // [layer]
}

// levelCount is the counts of one half of a layer.
type levelCount struct {
	anchors []uint64 // [level]
	levels  []uint64 // [channel of all heads][level]
}

type countScratch struct {
	coded  []byte
	encode Scratch
	pack   PackScratch
}

// NewLevelCounts starts counting for a model's shape; the format is cachegen or, for
// the levels of anchors and deltas, cachegen,delta=10.
func NewLevelCounts(format string, layers, kvHeads, headDim int) (*LevelCounts, error) {
	f, err := ParseFormat(format, false)
	if err != nil {
		return nil, err
	}
	g, err := NewGeometry(f, layers, kvHeads, headDim)
	if err != nil {
		return nil, err
	}
	l := &LevelCounts{g: g, counts: make([][2]levelCount, layers), work: make([]countScratch, layers)}
	for i := range l.counts {
		for half := range 2 {
			l.counts[i][half].levels = make([]uint64, kvHeads*headDim*(2*g.At(i).Group.Halves[half].Most+1))
			if f.Delta > 0 {
				l.counts[i][half].anchors = make([]uint64, 2*anchorLevel+1)
			}
		}
		l.work[i].coded = make([]byte, g.At(i).CodedBytes())
	}
	return l, nil
}

// Add counts the first tokens of one layer of a float16 page. Layers may be added
// concurrently.
func (l *LevelCounts) Add(layer int, exact []byte, tokens int) {
	g, w := l.g.At(layer), &l.work[layer]
	g.EncodeIn(EncodeArgs{Exact: exact, Coded: w.coded, Layer: layer, Hi: tokens}, &w.encode)
	for half := range 2 {
		count := &l.counts[layer][half]
		rest, levels := count.levels, 2*g.Group.Halves[half].Most+1
		for head := range g.KVHeads {
			g.takeLevels(&w.pack, w.coded, half, head, tokens)
			for c := range g.HeadDim {
				for t, s := range w.pack.levels[c*groupTokens : c*groupTokens+tokens] {
					if g.Group.Delta > 0 && g.Group.anchor(t) == t {
						count.anchors[s]++
					} else {
						rest[s]++
					}
				}
				rest = rest[levels:]
			}
		}
	}
}

// Frequencies is what was counted as Calibration.Levels, or Deltas, has it.
func (l *LevelCounts) Frequencies() []uint16 {
	var f []uint16
	for i := range l.counts {
		for half := range 2 {
			count := &l.counts[i][half]
			if count.anchors != nil {
				f = append(f, entropy.Frequencies(count.anchors)...)
			}
			levels := 2*l.g.At(i).Group.Halves[half].Most + 1
			for rest := count.levels; len(rest) > 0; rest = rest[levels:] {
				f = append(f, entropy.Frequencies(rest[:levels])...)
			}
		}
	}
	return f
}
