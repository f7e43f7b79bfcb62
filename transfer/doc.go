// Package transfer is the KV wire: how the pages of a prompt cross from the
// worker that prefilled it to the worker that decodes it, layer by layer while
// prefill goes on.
//
// # A fetch
//
// The decode worker has reserved pages and connects to the prefill worker's
// data port. Both say Hello: protocol version, model and calibration hash, KV
// format and geometry; what does not match is refused with a readable reason.
// Then it sends its request (opaque to this package) and reads KV frames until
// Done or Error. Closing the connection cancels. One connection carries one
// request.
//
//	decoder                         prefiller
//	  Hello            ->
//	                   <-           Hello | Error
//	  Request          ->
//	                   <-           KV(layer, parts)…, Ping…
//	                   <-           Done | Error
//	  Ping…            ->
//
// # Frames
//
// Every frame has a fixed header with type, epoch, sequence number, length and
// a CRC-32C over header and payload. A KV frame names its layer and, part by
// part, the page, its form, the tokens and the halves; its payload is page
// bytes exactly as they lie in the cache (scales and zeros inside), written
// from the sender's pages with writev and read straight into the receiver's.
// The receiver knows from quant.Format.Handover what must come and takes each
// part once; anything else breaks the fetch.
//
// Either side that hears nothing for IdleTimeout gives up: a lost peer is an
// error, never a hang.
package transfer
