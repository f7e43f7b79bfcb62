package model

import (
	"fmt"
	"math"
	"math/cmplx"

	"github.com/terse-llm/terse"
)

// oracle computes the family's logits in float64 as the papers state them: one
// token at a time, a list of past keys per head, rotation as complex numbers.
// It shares no code with the graph.
type oracle struct {
	dim, layers, heads, kvHeads, headDim int
	eps                                  float64
	freq                                 []float64 // radians per token of pair (i, i+len(freq))
	magnitude                            float64   // of the rotation, 1 but for yarn
	weights                              map[string][]float64
	keys, values                         map[string][][]float64 // by layer and KV head
}

func (o *oracle) logits(text []terse.Token) [][]float32 {
	o.keys, o.values = map[string][][]float64{}, map[string][][]float64{}
	var out [][]float32
	for pos, t := range text {
		x := append([]float64(nil), o.weights["model.embed_tokens.weight"][int(t)*o.dim:(int(t)+1)*o.dim]...)
		for l := range o.layers {
			prefix := fmt.Sprintf("model.layers.%d.", l)
			sum(x, o.attention(prefix, pos, o.norm(prefix+"input_layernorm", x)))
			h := o.norm(prefix+"post_attention_layernorm", x)
			gate, up := o.project(prefix+"mlp.gate_proj", h), o.project(prefix+"mlp.up_proj", h)
			for i, g := range gate {
				up[i] *= g / (1 + math.Exp(-g))
			}
			sum(x, o.project(prefix+"mlp.down_proj", up))
		}
		head := "lm_head"
		if o.weights["lm_head.weight"] == nil {
			head = "model.embed_tokens"
		}
		var row []float32
		for _, v := range o.project(head, o.norm("model.norm", x)) {
			row = append(row, float32(v))
		}
		out = append(out, row)
	}
	return out
}

func (o *oracle) attention(prefix string, pos int, x []float64) []float64 {
	q, k, v := o.project(prefix+"self_attn.q_proj", x), o.project(prefix+"self_attn.k_proj", x), o.project(prefix+"self_attn.v_proj", x)
	d := o.headDim
	for h := range o.kvHeads {
		at := fmt.Sprint(prefix, h)
		o.keys[at] = append(o.keys[at], o.turn(o.headNorm(prefix+"self_attn.k_norm", k[h*d:(h+1)*d]), pos))
		o.values[at] = append(o.values[at], v[h*d:(h+1)*d])
	}
	var mixed []float64
	for h := range o.heads {
		at := fmt.Sprint(prefix, h*o.kvHeads/o.heads)
		query := o.turn(o.headNorm(prefix+"self_attn.q_norm", q[h*d:(h+1)*d]), pos)
		out, total := make([]float64, d), 0.0
		for j, key := range o.keys[at] {
			w := math.Exp(inner(query, key) / math.Sqrt(float64(d)))
			total += w
			for c, val := range o.values[at][j] {
				out[c] += w * val
			}
		}
		for c := range out {
			out[c] /= total
		}
		mixed = append(mixed, out...)
	}
	return o.project(prefix+"self_attn.o_proj", mixed)
}

func (o *oracle) turn(x []float64, pos int) []float64 {
	half := len(o.freq)
	y := append([]float64(nil), x...)
	for i, f := range o.freq {
		z := complex(x[i], x[i+half]) * cmplx.Rect(o.magnitude, float64(pos)*f)
		y[i], y[i+half] = real(z), imag(z)
	}
	return y
}

func (o *oracle) headNorm(name string, x []float64) []float64 {
	if o.weights[name+".weight"] == nil {
		return x
	}
	return o.norm(name, x)
}

func (o *oracle) norm(name string, x []float64) []float64 {
	scale := 1 / math.Sqrt(inner(x, x)/float64(len(x))+o.eps)
	y := make([]float64, len(x))
	for i := range x {
		y[i] = x[i] * scale * o.weights[name+".weight"][i]
	}
	return y
}

func (o *oracle) project(name string, x []float64) []float64 {
	w, bias := o.weights[name+".weight"], o.weights[name+".bias"]
	y := make([]float64, len(w)/len(x))
	for i := range y {
		y[i] = inner(w[i*len(x):(i+1)*len(x)], x)
		if bias != nil {
			y[i] += bias[i]
		}
	}
	return y
}

func inner(a, b []float64) (s float64) {
	for i := range a {
		s += a[i] * b[i]
	}
	return s
}

func sum(x, y []float64) {
	for i := range x {
		x[i] += y[i]
	}
}
