import { ClerkProvider } from '@clerk/nextjs';
import type { ReactNode } from 'react';

export const metadata = { title: 'Herald and Next.js' };

export default function Layout({ children }: { children: ReactNode }) {
  return (
    <ClerkProvider>
      <html lang="en">
        <body style={{ maxWidth: '40rem', margin: '2rem auto', fontFamily: 'system-ui' }}>{children}</body>
      </html>
    </ClerkProvider>
  );
}
