//go:build !purego && (amd64 || arm64)

package exact

import "unsafe"

//go:generate go run -C ../_asm ./exact -out ../exact/exact_amd64.s -stubs ../exact/exact_amd64.go -pkg exact
//go:generate go run -C ../_asm ./neon/exact -out ../exact/exact_arm64.s -stubs ../exact/exact_arm64.go -pkg exact

// next is memory to fetch: the rows' own where there is nothing to come.
func (r Rows) next() *byte {
	if len(r.Next) == 0 {
		return unsafe.SliceData(r.Data)
	}
	return unsafe.SliceData(r.Next)
}
