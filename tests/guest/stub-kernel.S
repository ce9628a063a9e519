// A kernel for tests of the loader: looks like an arm64 Image, prints the command line that the loader gave it, and
// then powers off, resets as a panicking kernel would (-DRESET), or hangs (-DHANG). Assembled by the test that uses it.
// Knows QEMU's virt machine only: PL011 at 0x09000000, PSCI by hvc.
        .text
        .global _start
_start: b       start
        .word   0
        .quad   0x0                     // text_offset
        .quad   0x10000                 // image_size: where the boot script puts the initrd depends on it
        .quad   0xa                     // flags: little endian, 4 KiB pages, anywhere
        .quad   0, 0, 0
        .ascii  "ARM\x64"
        .word   0

start:  mov     x19, #0x09000000
        mov     x20, x0                 // the device tree
        ldr     w21, [x20, #4]          // big endian
        rev     w21, w21                // its size
        add     x21, x20, x21
// The command line is the only text of the tree that starts with "console=". Values stand at multiples of 4, and without
// an MMU nothing else can be read but whole words at such places.
        adr     x22, word
        ldp     w23, w24, [x22]
find:   cmp     x20, x21
        b.hs    missing
        ldp     w25, w26, [x20], #4
        cmp     w25, w23
        b.ne    find
        cmp     w26, w24
        b.ne    find
        sub     x20, x20, #4
        adr     x22, prefix
        bl      print
        mov     x22, x20
        bl      print
        b       end
missing: adr    x22, none
        bl      print
end:    adr     x22, newline
        bl      print
#ifdef HANG
sleep:  wfi
        b       sleep
#endif
#ifdef RESET
        mov     w0, #0x84000000
        add     w0, w0, #9              // PSCI SYSTEM_RESET
#else
        mov     w0, #0x84000000
        add     w0, w0, #8              // PSCI SYSTEM_OFF
#endif
        hvc     #0
hang:   b       hang

print:  ldrb    w24, [x22], #1
        cbz     w24, done
        strb    w24, [x19]
        b       print
done:   ret

        .balign 8
word:   .ascii  "console="
prefix: .asciz  "STUB "
none:   .asciz  "STUB without a command line"
newline: .asciz "\r\n"
