// Package kvcache keeps the books of the KV cache: which pages exist, who holds
// them, which hold a prefix that the next request can reuse, and what may be
// given up when memory runs out. It never looks into a page.
//
// A sequence's pages are a [Table]: for every logical page (Format.PageTokens
// consecutive tokens) the id of its exact form, of its coded form, or of both.
// The two kinds share one byte budget. A [Cache] hands out ids and counts
// references; a [Store] has the bytes behind the ids. A simulator uses a Cache
// without a Store.
//
// # Prefix index
//
// A full page is registered under a hash of all tokens up to its end, so equal
// prefixes share pages. Only full pages are registered and nothing is ever
// written to a full page again, which is why there is no copy-on-write. Pages
// that nobody references stay until their bytes are needed; the least recently
// used go first, and of one sequence the last pages first.
//
// A reused page has the forms that outlive the exact windows only: its coded
// form, and its exact form where it holds sinks (f16: the exact form).
//
// A Cache and its Store belong to one goroutine.
package kvcache
