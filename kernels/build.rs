//! Compiles the emulated GPU (kernels/cuda with kernels/cuda/emu) where the feature asks for it.

fn main() {
    println!("cargo::rerun-if-changed=cuda");
    #[cfg(feature = "cuda-emulator")]
    {
        cc::Build::new()
            .cpp(true)
            .cpp_link_stdlib(None)
            .std("c++17")
            // Kernels read bytes as words, as CUDA allows. UNROLL is nothing here, and helpers of one kernel are unused in another's file.
            .flags(["-fno-strict-aliasing", "-fno-exceptions", "-fno-rtti"])
            .flags(["-Wno-unused-function", "-Wno-unknown-pragmas"])
            .include("cuda")
            .file("cuda/emu/emu.cpp")
            // A test's speed depends on it, whatever the profile.
            .opt_level(2)
            .compile("bitai_cuda_emulator");
    }
}
