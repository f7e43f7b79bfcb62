package fused

import "github.com/terse-llm/terse/quant"

const (
	pageTokens = 64
	groupWidth = 64 // channels that share a scale
)

// Layout says where one KV head's K and V of 64 tokens lie: a page of int8 or
// int4, or one layer of cachegen, whose halves may differ.
type Layout = quant.GroupLayout

// NewLayout lays out heads of d channels in 4 or 8 bits.
func NewLayout(d, bits int) Layout { return quant.NewGroupLayout(d, bits, bits) }
