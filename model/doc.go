// Package model is the Llama family of language models as one graph with
// settings: grouped-query attention, rotary embedding with its scalings,
// RMSNorm, SwiGLU, tied or own output embedding, biases (Qwen2) and QK-norm
// (Qwen3).
//
// [ConfigOf] reads the settings from config.json or GGUF metadata and refuses
// by name what the graph does not compute. [Bind] finds the weights by name and
// checks their shapes; they stay in the file's type and memory. [Model.Forward]
// is the graph, and reads like the papers: Touvron et al. 2023 (arXiv
// 2302.13971), Ainslie et al. 2023 (GQA, arXiv 2305.13245), Su et al. 2021
// (RoPE, arXiv 2104.09864).
//
// Of Hugging Face models these work: model_type llama (Llama 1 to 3.x, Yi and
// others of the same graph), mistral, qwen2 (and Qwen2.5) and qwen3; of GGUF
// files the architectures llama (Mistral and Yi too), qwen2 and qwen3.
package model
