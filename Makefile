# gyaru-aituber - build, test, lint, install. `make help` lists the targets.
#
# SAN=address,undefined builds with sanitizers into a directory of its own.

comma   := ,
CC      ?= gcc
PREFIX  ?= /usr/local
SAN     ?=
BUILD   := build$(if $(SAN),-$(subst $(comma),-,$(SAN)))

PKGS    := libwebsockets jansson yaml-0.1 libpcre2-8 libutf8proc libzip libedit libcurl lapacke openblas
PKG_CONFIG ?= pkg-config
# The compiler may be newer or older than ours: warnings are errors in CI only (WERROR=1).
CFLAGS  ?= -O2 -g
WARN    := -Wall -Wextra -Wshadow -Wpointer-arith -Wstrict-prototypes -Wmissing-prototypes \
           -Wvla -Wwrite-strings -Wundef -Wno-unused-parameter $(if $(WERROR),-Werror)
ALL_CFLAGS = -std=c11 -D_GNU_SOURCE -Iinclude -Isrc -I$(BUILD) $(WARN) -fopenmp-simd -fPIC -MMD -MP \
           $(shell $(PKG_CONFIG) --cflags $(PKGS)) $(CFLAGS) \
           $(if $(SAN),-fsanitize=$(SAN) -fno-omit-frame-pointer -fno-sanitize-recover=undefined)
ALL_LDFLAGS = $(LDFLAGS) $(if $(SAN),-fsanitize=$(SAN))
LIBS    := $(shell $(PKG_CONFIG) --libs $(PKGS)) -lm -ldl -pthread

LIB_SRC := $(sort $(wildcard src/base/*.c src/format/*.c src/quant/*.c src/text/*.c \
           src/backend/*.c src/backend/cpu/*.c src/model/*.c src/steer/*.c))
APP_SRC := $(sort $(wildcard src/talk/*.c src/server/*.c src/cli/*.c))
WEB_STYLE := $(sort $(wildcard src/web/style/*.css))
WEB_SRC := $(sort $(wildcard src/web/*.*)) $(BUILD)/style.css
# The CUDA tests are linked by rules of their own, below.
TEST_SRC := $(sort $(filter-out tests/test_cuda%,$(wildcard tests/test_*.c)))

LIB_OBJ := $(LIB_SRC:%.c=$(BUILD)/%.o)
APP_OBJ := $(APP_SRC:%.c=$(BUILD)/%.o) $(BUILD)/web_assets.o
TESTS   := $(TEST_SRC:tests/%.c=$(BUILD)/tests/%)
TEST_LIB := $(patsubst %.c,$(BUILD)/%.o,$(wildcard tests/support/*.c))

# The plug-in for NVIDIA GPUs needs nvcc to build and nothing but the driver to run.
NVCC       ?= nvcc
CUDA_ARCHS ?= 80 86 89 90 100 120
CUDA_HOME  ?= $(patsubst %/bin/,%,$(dir $(realpath $(shell command -v $(NVCC) 2>/dev/null))))
CUDA_CU    := $(sort $(wildcard src/backend/cuda/*.cu))
CUDA_C     := $(sort $(wildcard src/backend/cuda/*.c))
CUDA_BASE  := src/base/error.c src/base/reason.c src/quant/quant.c src/quant/part.c
CUDA_OBJ   := $(CUDA_CU:%=$(BUILD)/%.o) $(CUDA_C:%.c=$(BUILD)/%.o) $(CUDA_BASE:%.c=$(BUILD)/%.o)
CUDA_CODE  = $(foreach a,$(CUDA_ARCHS),-gencode arch=compute_$(a),code=sm_$(a)) \
             -gencode arch=compute_$(firstword $(CUDA_ARCHS)),code=compute_$(firstword $(CUDA_ARCHS))
CXX        ?= g++
HAVE_NVCC  := $(if $(SAN),,$(shell command -v $(NVCC) 2>/dev/null))
HAVE_CXX   := $(shell command -v $(CXX) 2>/dev/null)

all: $(BUILD)/gyaru $(if $(SAN),,$(if $(HAVE_NVCC),$(BUILD)/libgyaru-cuda.so,no-cuda))

no-cuda:
	@echo "no nvcc (NVCC=$(NVCC)): building without libgyaru-cuda.so, the plug-in for NVIDIA GPUs"

$(BUILD)/gyaru: $(APP_OBJ) $(BUILD)/libgyaru.a
	$(CC) $(ALL_LDFLAGS) -o $@ $^ $(LIBS)

$(BUILD)/libgyaru.a: $(LIB_OBJ)
	rm -f $@ && ar rcs $@ $^

$(BUILD)/%.o: %.c
	@mkdir -p $(@D)
	$(CC) $(ALL_CFLAGS) $(FILE_FLAGS) -c -o $@ $<

# Kernel files: one instruction set each, chosen at run time. Contraction and reassociation stay
# off: every variant adds in the same order, so that a row's result never depends on its neighbours.
$(BUILD)/src/backend/cpu/%_avx512.o: FILE_FLAGS = -O3 -mavx512f -mavx512bw -mavx512dq \
           -mavx512vl -mavx2 -mfma -mf16c
$(BUILD)/src/backend/cpu/%_avx2.o: FILE_FLAGS = -O3 -mavx2 -mfma -mf16c

$(BUILD)/tests/%.o: FILE_FLAGS = -Itests

# ---- the CUDA plug-in -------------------------------------------------------------------------

cuda: $(BUILD)/libgyaru-cuda.so

$(BUILD)/src/backend/cuda/%.o: FILE_FLAGS = -fvisibility=hidden -isystem $(CUDA_HOME)/include
$(BUILD)/src/backend/cuda/%.cu.o: src/backend/cuda/%.cu
	@mkdir -p $(@D)
	$(NVCC) -std=c++17 -O3 -Isrc -Iinclude -Xcompiler -fPIC,-fvisibility=hidden $(CUDA_CODE) \
	    $(CUDA_FLAGS) -MMD -MP -MF $(@:.o=.d) -c -o $@ $<

$(BUILD)/libgyaru-cuda.so: $(CUDA_OBJ)
	$(NVCC) -shared -cudart static -Xlinker -Bsymbolic,--exclude-libs=ALL,-z,defs -o $@ $^ \
	    -lutf8proc -lm -lpthread -ldl -lrt

# The same sources for the CPU: kernels run as fibers (tests/cuda_emu). The test program is the one
# that drives the GPU; it takes whichever plug-in lies beside it.
EMU      := $(BUILD)/emu
comma    := ,
EMU_FLAGS = -Itests/cuda_emu -Isrc -Iinclude -fPIC -g -O2 -MMD -MP -Wall -Wno-unknown-pragmas \
            $(if $(WERROR),-Werror) \
            $(if $(SAN),-fsanitize=$(SAN) -fno-omit-frame-pointer -fno-sanitize-recover=undefined)
EMU_OBJ  := $(CUDA_CU:%=$(EMU)/%.o) $(EMU)/emu.o $(EMU)/runtime.o $(EMU)/blas.o \
            $(patsubst %.c,$(EMU)/%.o,$(filter-out %/blas.c,$(CUDA_C))) \
            $(CUDA_BASE:%.c=$(BUILD)/%.o)
# Under sanitizers, whole models and random shapes on two GPUs take many minutes and run the same code.
EMU_TEST := $(if $(HAVE_CXX),$(EMU)/test_cuda_host $(EMU)/test_cuda_model_host \
            $(EMU)/test_cuda_model_pair_host \
            $(if $(SAN),,$(EMU)/test_cuda_pair_host \
            $(EMU)/test_reference_host $(EMU)/test_reference_pair_host \
            $(EMU)/test_cuda_commands $(EMU)/test_cuda_pair_commands))

$(EMU)/src/%.cu.o: src/%.cu
	@mkdir -p $(@D)
	$(CXX) -std=c++17 $(EMU_FLAGS) -x c++ -c -o $@ $<
$(EMU)/src/%.o: src/%.c
	@mkdir -p $(@D)
	$(CC) -std=c11 -D_GNU_SOURCE $(EMU_FLAGS) -c -o $@ $<
$(EMU)/%.o: tests/cuda_emu/%.cpp
	@mkdir -p $(@D)
	$(CXX) -std=c++17 $(EMU_FLAGS) -c -o $@ $<
# It finds the emulated NCCL beside itself, by NCCL's name. A sanitizer's dlopen does not look there:
# then it is loaded already.
$(EMU)/libgyaru-cuda.so: $(EMU_OBJ) | $(EMU)/libnccl.so.2
	$(CXX) -shared $(if $(SAN),-fsanitize=$(SAN)) -Wl,-Bsymbolic,-rpath,'$$ORIGIN' -o $@ $^ \
	    $(if $(SAN),-Wl$(comma)--no-as-needed $(EMU)/libnccl.so.2) \
	    $(shell $(PKG_CONFIG) --libs libutf8proc)
$(EMU)/libnccl.so.2: $(EMU)/nccl.o
	$(CXX) -shared $(if $(SAN),-fsanitize=$(SAN)) -Wl,-soname,$(@F) -o $@ $^

# Only the libraries that are really used: they travel to machines that have none of ours.
CUDA_TEST_LIB := $(addprefix $(BUILD)/tests/support/,random.o reference.o) $(BUILD)/libgyaru.a
CUDA_TEST_H   := $(wildcard tests/cuda/*.h)
LINK_TEST = $(CC) $(filter-out -MMD -MP,$(ALL_CFLAGS)) $(FILE_FLAGS) -Itests $(ALL_LDFLAGS) \
            -Wl,--as-needed -o $@ $(filter %.c,$^) $(CUDA_TEST_LIB) -lcmocka $(LIBS)
$(EMU)/test_cuda_host $(BUILD)/test_cuda $(EMU)/test_cuda_pair_host $(BUILD)/test_cuda_pair: \
    tests/test_cuda.c $(sort $(wildcard tests/cuda/*.c)) $(CUDA_TEST_H) $(CUDA_TEST_LIB)
	@mkdir -p $(@D)
	$(LINK_TEST)
$(EMU)/test_cuda_model_host $(BUILD)/test_cuda_model $(EMU)/test_cuda_model_pair_host \
$(BUILD)/test_cuda_model_pair: tests/test_cuda_model.c $(CUDA_TEST_H) $(CUDA_TEST_LIB)
	@mkdir -p $(@D)
	$(LINK_TEST)
$(EMU)/test_reference_host $(BUILD)/test_cuda_reference $(EMU)/test_reference_pair_host \
$(BUILD)/test_cuda_reference_pair: tests/test_reference.c $(CUDA_TEST_LIB)
	@mkdir -p $(@D)
	$(LINK_TEST)
# The program beside the emulated plug-in, which it then finds.
$(EMU)/gyaru: $(BUILD)/gyaru | $(EMU)/libgyaru-cuda.so
	cp $< $@
$(EMU)/test_cuda_commands $(EMU)/test_cuda_pair_commands: $(EMU)/%: tests/%.c $(TEST_LIB) \
    $(BUILD)/libgyaru.a $(EMU)/gyaru
	$(CC) $(ALL_CFLAGS) -Itests $(ALL_LDFLAGS) -o $@ $< $(TEST_LIB) $(BUILD)/libgyaru.a -lcmocka \
	    $(LIBS)
# _pair: the same tests again, with two GPUs that share the model.
EMU_TESTS := $(filter $(EMU)/test_cuda_% $(EMU)/test_reference_%,$(EMU_TEST))
CUDA_PAIR := $(BUILD)/test_cuda_pair $(BUILD)/test_cuda_model_pair
$(EMU_TESTS): | $(EMU)/libgyaru-cuda.so
$(EMU)/test_cuda_host $(EMU)/test_cuda_model_host: private FILE_FLAGS = -DCUDA_REQUIRED
$(EMU)/test_cuda_pair_host $(EMU)/test_cuda_model_pair_host: private FILE_FLAGS = \
    -DCUDA_REQUIRED -DGPUS=2
$(CUDA_PAIR): private FILE_FLAGS = -DGPUS=2
$(BUILD)/test_cuda_reference: private FILE_FLAGS = -DTEST_DEVICE='"cuda"'
$(BUILD)/test_cuda_reference_pair: private FILE_FLAGS = -DTEST_DEVICE='"cuda:0,1"'
$(EMU)/test_reference_host: private FILE_FLAGS = -DTEST_DEVICE='"cuda"' -DLONGEST=64
$(EMU)/test_reference_pair_host: private FILE_FLAGS = -DTEST_DEVICE='"cuda:0,1"' -DLONGEST=64

# On the GPU. Without one, or without nvcc, the tests say why they are skipped.
CUDA_TESTS := $(BUILD)/test_cuda $(BUILD)/test_cuda_model $(BUILD)/test_cuda_reference \
              $(CUDA_PAIR) $(BUILD)/test_cuda_reference_pair
test-cuda: $(CUDA_TESTS) $(if $(HAVE_NVCC),$(BUILD)/libgyaru-cuda.so)
	@BUILD=$(BUILD) sh tests/run.sh $(CUDA_TESTS)

# The page is embedded in the program, its style as one sheet.
$(BUILD)/style.css: $(WEB_STYLE)
	@mkdir -p $(@D)
	cat $(WEB_STYLE) > $@
$(BUILD)/web_assets.c: $(WEB_SRC) tools/embed.sh
	@mkdir -p $(@D)
	sh tools/embed.sh $(WEB_SRC) > $@.tmp && mv $@.tmp $@
$(BUILD)/web_assets.o: $(BUILD)/web_assets.c
	$(CC) $(ALL_CFLAGS) -c -o $@ $<

$(BUILD)/tests/%: tests/%.c $(TEST_LIB) $(BUILD)/libgyaru.a
	@mkdir -p $(@D)
	$(CC) $(ALL_CFLAGS) -Itests $(ALL_LDFLAGS) -o $@ $< $(TEST_LIB) $(filter $(BUILD)/src/%,$^) \
	    $(BUILD)/libgyaru.a -lcmocka $(LIBS)

# Parts of the program that are tested on their own.
$(BUILD)/tests/test_config_edit: $(addprefix $(BUILD)/src/cli/,config_edit.o config_change.o)
$(BUILD)/tests/test_places: $(addprefix $(BUILD)/src/server/,places.o shelf.o steering.o log.o)
$(BUILD)/tests/test_sentence: $(addprefix $(BUILD)/src/talk/,sentence.o sentence_text.o)

$(BUILD)/bench/%: bench/%.c $(BUILD)/libgyaru.a
	@mkdir -p $(@D)
	$(CC) $(ALL_CFLAGS) $(ALL_LDFLAGS) -o $@ $(filter-out %.a,$^) $(filter %.a,$^) $(LIBS)

# What puts load on a server shares its clients.
$(BUILD)/bench/soak $(BUILD)/bench/crowd: $(BUILD)/bench/client.o

$(BUILD)/bench/device: private ALL_LDFLAGS += -Wl,--as-needed # travels, as the CUDA tests do
$(BUILD)/bench/device: $(patsubst %,$(BUILD)/src/cli/%.o,bandwidth cmd_bench config figures \
    interrupt load options progress)

# A stand-in for the driver's library, loaded by path.
$(BUILD)/tests/fake_nvml.so: tests/support/fake/nvml.c
	@mkdir -p $(@D)
	$(CC) $(ALL_CFLAGS) $(ALL_LDFLAGS) -shared -o $@ $<
$(BUILD)/tests/test_doctor $(BUILD)/tests/test_migrate $(EMU)/test_cuda_commands \
$(EMU)/test_cuda_pair_commands: | $(BUILD)/tests/fake_nvml.so

# BUILD tells the tests which program to drive.
test: all $(TESTS) $(EMU_TEST)
	$(if $(HAVE_CXX),,@echo "no C++ compiler (CXX=$(CXX)): the CUDA kernels are not tested on the host")
	@BUILD=$(BUILD) sh tests/run.sh $(TESTS) $(EMU_TEST)

# What threads do at a time, with SAN=thread: those that compute, and the server's (reliability 13,
# 21-24, 29).
THREAD_TESTS := $(addprefix $(BUILD)/tests/test_,pool cpu_step reliability server_chat server_process server_attack \
                openai_attack vectors vector_reload overlay voice voice_faults)
test-threads: $(BUILD)/gyaru $(THREAD_TESTS)
	@BUILD=$(BUILD) SCRIPTS=no sh tests/run.sh $(THREAD_TESTS)

# Parsers of untrusted files under libFuzzer (clang), FUZZ_SECONDS each, from the kept corpora.
FUZZ_SECONDS ?= 60
FUZZERS := $(patsubst fuzz/fuzz_%.c,%,$(sort $(wildcard fuzz/fuzz_*.c)))
FUZZ_LIB_SRC := $(filter-out src/base/http_client.c,$(filter src/base/% src/format/% src/text/%,$(LIB_SRC))) \
                src/talk/sentence.c src/talk/sentence_text.c
FUZZ_PKGS    := jansson libzip libutf8proc libpcre2-8

build-fuzz/fuzz_%: fuzz/fuzz_%.c fuzz/feed.h $(FUZZ_LIB_SRC)
	@mkdir -p $(@D)
	clang -std=c11 -D_GNU_SOURCE -Iinclude -Isrc -Ifuzz -O1 -g $(WARN) \
	    -fsanitize=fuzzer,address,undefined -fno-sanitize-recover=undefined \
	    $(shell $(PKG_CONFIG) --cflags $(FUZZ_PKGS)) \
	    -o $@ $< $(FUZZ_LIB_SRC) $(shell $(PKG_CONFIG) --libs $(FUZZ_PKGS)) -lm

fuzz: $(FUZZERS:%=build-fuzz/fuzz_%)
	@for f in $(FUZZERS); do echo "== $$f"; mkdir -p build-fuzz/corpus/$$f fuzz/corpus/$$f; \
	    dict=; [ -e fuzz/$$f.dict ] && dict=-dict=fuzz/$$f.dict; \
	    build-fuzz/fuzz_$$f $$dict -max_total_time=$(FUZZ_SECONDS) -rss_limit_mb=512 -malloc_limit_mb=256 \
	    -timeout=10 -print_final_stats=1 -verbosity=0 -artifact_prefix=build-fuzz/ \
	    build-fuzz/corpus/$$f fuzz/corpus/$$f || exit 1; done

lint:
	@sh tools/lint.sh

format:
	git ls-files '*.c' '*.h' '*.cu' '*.cuh' '*.cpp' | xargs clang-format -i

install: all
	install -D -m 755 $(BUILD)/gyaru $(DESTDIR)$(PREFIX)/bin/gyaru
	[ ! -e $(BUILD)/libgyaru-cuda.so ] || \
	    install -D -m 755 $(BUILD)/libgyaru-cuda.so $(DESTDIR)$(PREFIX)/bin/libgyaru-cuda.so
	install -D -m 644 include/gyaru.h $(DESTDIR)$(PREFIX)/include/gyaru.h
	install -D -m 644 $(BUILD)/libgyaru.a $(DESTDIR)$(PREFIX)/lib/libgyaru.a
	for m in models/*/; do d=$(DESTDIR)$(PREFIX)/share/gyaru/$$m; \
	    install -d $$d && install -m 644 $$m* $$d; done
	install -d $(DESTDIR)$(PREFIX)/share/gyaru/data/personas
	install -m 644 data/*.json $(DESTDIR)$(PREFIX)/share/gyaru/data
	install -m 644 data/personas/* $(DESTDIR)$(PREFIX)/share/gyaru/data/personas

uninstall:
	rm -f $(DESTDIR)$(PREFIX)/bin/gyaru $(DESTDIR)$(PREFIX)/bin/libgyaru-cuda.so \
	    $(DESTDIR)$(PREFIX)/include/gyaru.h \
	    $(DESTDIR)$(PREFIX)/lib/libgyaru.a
	rm -rf $(DESTDIR)$(PREFIX)/share/gyaru

clean:
	rm -rf build build-*

help:
	@echo "make            build/gyaru and build/libgyaru.a"
	@echo "make cuda       build/libgyaru-cuda.so alone (CUDA_ARCHS=90: for one kind of GPU)"
	@echo "make test-cuda  what drives the GPU, on the GPU"
	@echo "make test       all tests (SAN=address,undefined: with sanitizers)"
	@echo "make test-threads  what threads do at a time (SAN=thread)"
	@echo "make fuzz       parsers under libFuzzer, FUZZ_SECONDS ($(FUZZ_SECONDS)) each"
	@echo "make lint       format, include directions, cppcheck"
	@echo "make install    to PREFIX ($(PREFIX))"
	@echo "make format     clang-format in place"
	@echo "make clean"

-include $(CUDA_OBJ:.o=.d) $(EMU_OBJ:.o=.d) $(EMU)/nccl.d
-include $(LIB_OBJ:.o=.d) $(APP_OBJ:.o=.d) $(TESTS:=.d)

.PHONY: all no-cuda cuda test-cuda test test-threads fuzz lint format install uninstall clean help
.DELETE_ON_ERROR:
