// Package transfer is the KV wire: how the pages of a prompt cross from the
// worker that prefilled it to the worker that decodes it, layer by layer while
// prefill goes on. docs/wire.md has the protocol byte by byte.
//
// # A transfer
//
// A decode worker keeps connections to the prefill workers' data ports
// ([Client.Warm]). For a prompt it reserves pages ([Client.Begin]) and sends
// its request, opaque to this package, over one of them ([Fetch.From]); more
// connections join where the prompt is long enough.
//
//	decoder                         prefiller
//	  Request          ->
//	                   <-           Accept | Error
//	  Join…            ->           (over further connections)
//	                   <-           KV…  (over any of them)
//	  Ack…             ->
//	                   <-           Done | Error
//	  Ack              ->
//
// On the prefill side the request's [Handler] has the engine write into a
// [Sender], which sends from where the pages lie in the cache, by writev. On the
// decode side a frame is read whole, checked, and copied once, to the pages.
//
// # What is never silently wrong
//
// Every frame carries lease, epoch, sequence number and a CRC-32C, and with a
// cluster key a tag. Both sides number the parts of a hand-over by
// quant.Format.Handover; the receiver knows which must come, takes each once and
// says which it has. So a connection that breaks, however it breaks, costs what
// was on its way and no more, a prefill worker that is lost is replaced by one
// that sends the rest, and frames of what is over are dropped.
//
// Either side that hears nothing for Timeouts.Idle gives up a connection, and
// the prefill side keeps a transfer without one for Timeouts.Lease: a lost peer is
// an error, never a hang.
package transfer
