package quant

import "github.com/terse-llm/terse/quant/entropy"

// LevelCounts counts how often cachegen's levels come, layer by layer, for a
// calibration.
type LevelCounts struct {
	g      *Geometry
	counts [][2][]uint64 // [layer][half][channel of all heads][level]
	pack   []PackScratch // [layer]
	coded  [][]byte      // [layer]
	encode []Scratch     // [layer]
}

// NewLevelCounts starts counting for a model's shape.
func NewLevelCounts(layers, kvHeads, headDim int) (*LevelCounts, error) {
	f, err := ParseFormat("cachegen", false)
	if err != nil {
		return nil, err
	}
	g, err := NewGeometry(f, layers, kvHeads, headDim)
	if err != nil {
		return nil, err
	}
	l := &LevelCounts{g: g, counts: make([][2][]uint64, layers), pack: make([]PackScratch, layers), coded: make([][]byte, layers), encode: make([]Scratch, layers)}
	for i := range l.counts {
		for half := range 2 {
			l.counts[i][half] = make([]uint64, kvHeads*headDim*levelsOf(g.At(i).Group.Halves[half].Bits))
		}
		l.coded[i] = make([]byte, g.At(i).CodedBytes())
	}
	return l, nil
}

// Add counts the first tokens of one layer of a float16 page. Layers may be added
// concurrently.
func (l *LevelCounts) Add(layer int, exact []byte, tokens int) {
	g, w := l.g.At(layer), &l.pack[layer]
	g.EncodeIn(EncodeArgs{Exact: exact, Coded: l.coded[layer], Layer: layer, Hi: tokens}, &l.encode[layer])
	for half := range 2 {
		levels := levelsOf(g.Group.Halves[half].Bits)
		rest := l.counts[layer][half]
		for head := range g.KVHeads {
			g.takeLevels(w, l.coded[layer], half, head, tokens)
			for c := range g.HeadDim {
				for _, s := range w.levels[c*groupTokens : c*groupTokens+tokens] {
					rest[s]++
				}
				rest = rest[levels:]
			}
		}
	}
}

// Frequencies is what was counted as Calibration.Levels has it.
func (l *LevelCounts) Frequencies() []uint16 {
	var f []uint16
	for i := range l.counts {
		for half := range 2 {
			levels := levelsOf(l.g.At(i).Group.Halves[half].Bits)
			for rest := l.counts[i][half]; len(rest) > 0; rest = rest[levels:] {
				f = append(f, entropy.Frequencies(rest[:levels])...)
			}
		}
	}
	return f
}
