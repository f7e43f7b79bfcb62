# make check is what every change must pass; .ci/run runs it and more.
GO       ?= go
STATICCHECK = $(GO) run honnef.co/go/tools/cmd/staticcheck@v0.8.2
RACE     = ./cluster/... ./gateway/... ./transfer/... ./worker/... ./engine ./kvcache/... ./sched/... ./kernels/cuda

.PHONY: check fmt vet staticcheck test purego noavx512 race generate house fuzz e2e bench bench-cpu build calibration gpu-check arm64 report results

check: fmt vet staticcheck test purego noavx512 race generate house

build:
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags='-s -w' -o bin/terse ./cmd/terse

fmt:
	@out=$$(gofmt -l $$(git ls-files '*.go')); test -z "$$out" || { echo "not gofmt-clean:"; echo "$$out"; exit 1; }

vet:
	$(GO) vet ./...
	GOARCH=arm64 $(GO) vet ./...

staticcheck:
	$(STATICCHECK) ./...
	$(STATICCHECK) -tags purego ./kernels/... ./internal/cpu

test:
	$(GO) test ./...

# The suite as machines with less than this one would run it: in portable Go alone,
# and on amd64 without AVX-512. The GPU's packages are left out: none of their code
# differs by these tags, and the emulated GPU takes a minute.
PORTABLE = $$($(GO) list ./... | grep -v -e /kernels/cuda -e /model/device)
purego:
	$(GO) vet -tags purego ./...
	$(GO) test -short -tags purego $(PORTABLE)

noavx512:
	$(GO) test -short -tags noavx512 $(PORTABLE)

race:
	CGO_ENABLED=1 $(GO) test -short -race $(RACE)
	CGO_ENABLED=1 $(GO) test -short -race -run 'Pool|Spans' ./kernels/cpu

# The kernels of arm64 by emulation (qemu-user-static): a processor with dot
# products, whose levels are all of them, and one without. Left out is what takes
# minutes in the portable Go around the kernels.
ARM64    = ./internal/cpu $(addprefix ./kernels/cpu/,codes encode exact hack matmul softmax vec)
EMULATED = GOARCH=arm64 $(GO) test -short -exec "qemu-aarch64-static -cpu $(1)"
arm64:
	GOARCH=arm64 $(GO) vet ./kernels/cpu $(ARM64)
	$(call EMULATED,neoverse-n1) -skip 'TestExactArithmetic|TestRun' $(ARM64)
	$(call EMULATED,neoverse-n1) -run TestConformance/neon-dotprod -skip 'TestConformance/.*/Encode$$' ./kernels/cpu
	$(call EMULATED,cortex-a72) -run 'TestLevels|Products|Sums|QK|PV|Integers|OneOrder' $(ARM64)

# Generated files must be what their generators make.
generate:
	$(GO) test -C kernels/cpu/_asm ./neon
	$(GO) generate ./...
	git diff --exit-code

house:
	$(GO) test -count=1 ./internal/house

# Every fuzz target by count, so that runs compare.
fuzz:
	.ci/fuzz 20000x

# Real processes over real sockets; as root on Linux, network namespaces too.
# The OpenAI client runs against a scripted worker and against terse serve.
e2e:
	$(GO) test -count=1 -timeout 30m ./e2e -full
	$(GO) test -count=1 -timeout 10m ./worker -run Aborts -args -aborts 10000
	cd e2e/openai && $(GO) test -count=1 . && $(GO) test -count=1 . -args -serve

# Faulty links, cancels and comparisons for ten minutes.
soak:
	$(GO) test -count=1 -timeout 20m -v ./worker -run Soak -args -soak 10m

# What the built-in model's KV formats know of it; workers compare the file's
# hash, so a new file is a new model to them.
calibration:
	$(GO) run ./cmd/terse calibrate --out internal/defaultmodel/kv.calibration

bench:
	$(GO) test -run '^$$' -bench . -benchmem ./kernels/... ./quant/... ./tokenizer/... ./sched/...

# Every kernel beside the floor that this machine sets.
bench-cpu: build
	bin/terse bench kernels

# docs/report.md from the results that are kept; results measures them again.
report:
	go run ./cmd/terse bench report docs/results/report.md.tmpl

# GROUPS: small and 1b on the processor, gpu on an NVIDIA GPU.
GROUPS ?= small 1b
MODELS ?= $(CURDIR)/.cache/models
results: build
	mkdir -p $(MODELS)
	case " $(GROUPS) " in *" 1b "*) go run ./internal/shapes -shape llama-3.2-1b -type q8_0 -out $(MODELS)/1b-q8_0.gguf;; esac
	case " $(GROUPS) " in *" gpu "*) for n in 3.2-1b 3.1-8b; do \
		go run ./internal/shapes -shape llama-$$n -type bf16 -out $(MODELS)/$${n#*-}-bf16.gguf || exit 1; done;; esac
	MODELS=$(MODELS) docs/results/measure.sh bin/terse docs/results $(GROUPS)

# On a machine with an NVIDIA GPU, nvcc and PyTorch: builds the CUDA kernels,
# checks them, and prints the tables of docs/cuda.md.
gpu-check:
	kernels/cuda/check.sh
