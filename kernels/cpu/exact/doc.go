// Package exact computes attention on exact pages: rows of float16, or of float32
// in the format f32, one token's channels each. It is the honest control of the
// formats whose attention is computed on codes, and what they read their exact
// windows with.
//
// Vector lanes are channels. A row is loaded and widened once for up to four query
// vectors (the query heads of a KV head, or rows of a prompt). Every sum has one
// order at a level: a score is one chain of fused multiply-adds per lane and then a
// fixed tree over the lanes; an output is one chain in token order. So a query
// vector's results are the same bits whatever other vectors and tokens are computed
// with it, and from float16 rows the same as from their Widened copy.
//
// The floor of decoding d channels for 4 query heads, per token and KV head: 4·d
// bytes from memory (d = 128: 27 ns at 19 GB/s), and 8·d multiply-adds (21 ns at
// 48 G a second, two 256-bit ones per cycle at 3 GHz). They overlap if the memory
// is asked for early enough: Rows.Next.
package exact
